-- What probes and deliveries have shown of an endpoint's receiver, by the endpoint's number.
CREATE TABLE findings (
    endpoint INTEGER PRIMARY KEY,
    document TEXT NOT NULL
) STRICT;

-- They go with their endpoint.
CREATE TRIGGER findings_of_forgotten AFTER DELETE ON endpoint
BEGIN
    DELETE FROM findings WHERE endpoint = old.number;
END;
