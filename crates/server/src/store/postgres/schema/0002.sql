-- What was counted of a workspace lately, for the first page of the dashboard: one row each, written about once a
-- minute while something happens. What the bytes mean is known to `telemetry::tally`.
CREATE TABLE figures (
    workspace uuid PRIMARY KEY,
    at        bigint NOT NULL,
    counted   bytea NOT NULL
);
