-- The outbox: events that an application publishes within transactions of its own, in this database. A row is
-- seen when its transaction is committed, and never otherwise; it is gone in the transaction that makes a message
-- of it. `xact` is the number of the publishing transaction and `seq` the place within it. Transactions commit in
-- another order than they began, so a row is taken only when no transaction with a lower number is open: then
-- nothing can appear before it any more, and (xact, seq) is the order of all.
CREATE TABLE outbox (
    workspace    uuid NOT NULL,
    xact         xid8 NOT NULL,
    seq          bigint NOT NULL,
    id           uuid NOT NULL,
    app          text NOT NULL,
    event_type   text NOT NULL,
    event_id     text,
    payload      bytea NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, xact, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_order ON outbox (xact, seq);

-- What could not become a message, with the reason, until it is past the retention or somebody removes it.
CREATE TABLE outbox_refused (
    workspace    uuid NOT NULL,
    id           uuid NOT NULL,
    app          text NOT NULL,
    event_type   text NOT NULL,
    event_id     text,
    payload      bytea NOT NULL,
    published_at timestamptz NOT NULL,
    refused_at   timestamptz NOT NULL,
    reason       text NOT NULL,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX outbox_refused_at ON outbox_refused (refused_at);

-- An application knows the id of an app, and not whose it is.
CREATE INDEX app_by_id ON app (id);

-- Publishes an event in the transaction of whoever calls it. What a caller can do wrong is an error here, in its
-- own transaction; what only the server can tell is found out later (`outbox_refused`). It runs with the rights of
-- its owner, so that callers need none on the tables; nobody may call it who was not granted to.
CREATE FUNCTION publish(
    app text, event_type text, payload json, event_id text DEFAULT NULL, workspace text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on AS $$
DECLARE
    owners uuid[];
    body   bytea;
    place  bigint;
    given  uuid := gen_random_uuid();
BEGIN
    SELECT array_agg(found.workspace) INTO owners FROM (
        SELECT a.workspace FROM hookturn.app a
        WHERE a.id = publish.app AND (publish.workspace IS NULL OR a.workspace IN (
            SELECT n.workspace FROM hookturn.workspace_name n WHERE n.name = publish.workspace))
        LIMIT 2) found;
    IF owners IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'HK001', MESSAGE = format('hookturn.publish: there is no app %L', publish.app),
            HINT = 'the app is named by its clientId';
    ELSIF cardinality(owners) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'HK001',
            MESSAGE = format('hookturn.publish: several workspaces have an app %L', publish.app),
            HINT = 'name the workspace too: publish(app, event_type, payload, event_id, workspace)';
    END IF;
    IF publish.event_type IS NULL OR publish.event_type !~ '^[A-Za-z0-9._:-]{1,128}$' THEN
        RAISE EXCEPTION USING ERRCODE = 'HK002', MESSAGE =
            'hookturn.publish: an event type is 1 to 128 characters of letters, digits, ".", "_", "-" and ":"';
    END IF;
    body := convert_to(publish.payload::text, 'UTF8');
    IF body IS NULL OR octet_length(body) > 262144 THEN
        RAISE EXCEPTION USING ERRCODE = 'HK003',
            MESSAGE = 'hookturn.publish: a payload is a JSON value of at most 262144 bytes';
    END IF;
    IF publish.event_id IS NOT NULL AND (char_length(publish.event_id) NOT BETWEEN 1 AND 128
            OR publish.event_id ~ '[\u0001-\u001f\u007f-\u009f]') THEN
        RAISE EXCEPTION USING ERRCODE = 'HK004',
            MESSAGE = 'hookturn.publish: an event id is 1 to 128 characters, without control characters';
    END IF;
    -- Counts within the transaction, and back when a savepoint is rolled back to.
    place := coalesce(nullif(current_setting('hookturn.published', true), '')::bigint, 0) + 1;
    PERFORM set_config('hookturn.published', place::text, true);
    INSERT INTO hookturn.outbox (workspace, xact, seq, id, app, event_type, event_id, payload, published_at)
    VALUES (owners[1], pg_current_xact_id(), place, given, publish.app, publish.event_type, publish.event_id, body,
            clock_timestamp());
    -- A hint, from one transaction at a time: the servers look anyway, and those who commit must not wait for each
    -- other.
    IF pg_try_advisory_xact_lock(114810724155632) THEN
        PERFORM pg_notify('hookturn_outbox', '');
    END IF;
    RETURN given;
END
$$;
REVOKE ALL ON FUNCTION publish(text, text, json, text, text) FROM PUBLIC;
