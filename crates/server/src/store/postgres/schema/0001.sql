-- The first schema, in a PostgreSQL schema of its own. Times are milliseconds since the epoch, ids are
-- UUIDs that sort by creation, documents are JSON texts with the field names of the domain types.
--
-- Every key begins with the workspace, and nothing refers to another workspace's rows. What must be found
-- or be unique over all workspaces is a table whose key is what it is found by: `workspace_name`,
-- `api_key`, `api_key_hash`, `idempotency`, and `meta`.

CREATE TABLE meta (
    key   text PRIMARY KEY,
    value bytea NOT NULL
);

-- Configuration: small, versioned, changed with compare-and-swap.
CREATE TABLE workspace (
    workspace uuid PRIMARY KEY,
    version   bigint NOT NULL,
    document  text NOT NULL
);

CREATE TABLE workspace_name (
    name      text PRIMARY KEY,
    workspace uuid NOT NULL
);

CREATE TABLE api_key (
    id           uuid PRIMARY KEY,
    hash         bytea NOT NULL,
    version      bigint NOT NULL,
    document     text NOT NULL,
    last_used_at bigint
);

CREATE TABLE api_key_hash (
    hash    bytea PRIMARY KEY,
    api_key uuid NOT NULL
);

CREATE TABLE app (
    workspace uuid NOT NULL,
    id        text NOT NULL,
    version   bigint NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, id)
);

CREATE TABLE endpoint (
    workspace  uuid NOT NULL,
    id         uuid NOT NULL,
    app        text NOT NULL,
    version    bigint NOT NULL,
    document   text NOT NULL,
    deleted_at bigint,
    receiver   text,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX endpoint_deleted ON endpoint (deleted_at) WHERE deleted_at IS NOT NULL;

-- What probes and deliveries have shown of an endpoint's receiver.
CREATE TABLE findings (
    workspace uuid NOT NULL,
    endpoint  uuid NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, endpoint)
);

CREATE TABLE keyring (
    workspace uuid NOT NULL,
    id        uuid NOT NULL,
    version   bigint NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, id)
);

CREATE TABLE secret (
    workspace uuid NOT NULL,
    keyring   uuid NOT NULL,
    id        uuid NOT NULL,
    version   bigint NOT NULL,
    sealed    bytea NOT NULL,
    PRIMARY KEY (workspace, keyring, id)
);

-- The marks by which secrets are found again, kept when the value is erased; without one yet are those
-- that were made before there were marks. A mark is not unique: one secret may be held twice.
CREATE TABLE secret_mark (
    workspace uuid NOT NULL,
    keyring   uuid NOT NULL,
    secret    uuid NOT NULL,
    mark      bytea,
    PRIMARY KEY (workspace, keyring, secret)
);
CREATE INDEX secret_mark_found ON secret_mark (mark) WHERE mark IS NOT NULL;
CREATE INDEX secret_mark_missing ON secret_mark (secret) WHERE mark IS NULL;

CREATE TABLE rotation (
    workspace uuid NOT NULL,
    id        uuid NOT NULL,
    keyring   uuid NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX rotation_keyring ON rotation (workspace, keyring, id);

-- Bulk rotations and their items, in the order in which they are rotated. `kind` repeats the kind of the
-- item's state, `is_open` whether the bulk rotation is not over.
CREATE TABLE bulk (
    workspace uuid NOT NULL,
    id        uuid NOT NULL,
    version   bigint NOT NULL,
    is_open   boolean NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, id)
);

CREATE TABLE bulk_item (
    workspace uuid NOT NULL,
    bulk      uuid NOT NULL,
    position  bigint NOT NULL,
    kind      bigint NOT NULL,
    version   bigint NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, bulk, position)
);
CREATE INDEX bulk_item_kind ON bulk_item (workspace, bulk, kind, position);

-- Rules by which rotations are opened, what each did for each keyring, and what owners were told.
CREATE TABLE schedule (
    workspace uuid NOT NULL,
    id        uuid NOT NULL,
    version   bigint NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, id)
);

CREATE TABLE schedule_note (
    workspace uuid NOT NULL,
    schedule  uuid NOT NULL,
    keyring   uuid NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, schedule, keyring)
);

CREATE TABLE noted (
    workspace uuid NOT NULL,
    keyring   uuid NOT NULL,
    document  text NOT NULL,
    PRIMARY KEY (workspace, keyring)
);

-- Append-only and hash-chained per workspace. The head is a row of its own, made with the workspace: whoever
-- appends locks it, so that two nodes cannot chain to the same entry. `reported` is the number of the last
-- entry that was turned into operational events.
CREATE TABLE audit (
    workspace uuid NOT NULL,
    seq       bigint NOT NULL,
    document  text NOT NULL,
    hash      bytea NOT NULL,
    PRIMARY KEY (workspace, seq)
);

CREATE TABLE audit_head (
    workspace uuid PRIMARY KEY,
    seq       bigint NOT NULL,
    hash      bytea NOT NULL
);

CREATE TABLE reported (
    workspace uuid PRIMARY KEY,
    seq       bigint NOT NULL
);

CREATE FUNCTION refuse_rewriting_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_rewriting_audit();
CREATE TRIGGER audit_is_never_emptied BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting_audit();

-- Answers of requests with an idempotency key, which is a hash over the workspace and more. `shows` and what
-- follows say whose value an answer shows; `response` is empty once it was erased with it.
CREATE TABLE idempotency (
    key               bytea PRIMARY KEY,
    fingerprint       bytea NOT NULL,
    response          bytea NOT NULL,
    expires_at        bigint NOT NULL,
    shows             text,
    shown_fingerprint text,
    shown_to          uuid
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
CREATE INDEX idempotency_shows ON idempotency (shows) WHERE shows IS NOT NULL;

CREATE TABLE event_type (
    workspace uuid NOT NULL,
    name      text NOT NULL,
    PRIMARY KEY (workspace, name)
);

-- Traffic. The time of a row is in its id, so days are ranges of ids: a key holds what it is partitioned by
-- without a column more, and an id alone leads to its day.
CREATE TABLE message (
    workspace   uuid NOT NULL,
    app         text NOT NULL,
    id          uuid NOT NULL,
    event_type  text NOT NULL,
    event_id    text,
    accepted_at bigint NOT NULL,
    payload     bytea NOT NULL,
    PRIMARY KEY (workspace, app, id)
) PARTITION BY RANGE (id);

CREATE TABLE attempt (
    workspace uuid NOT NULL,
    delivery  uuid NOT NULL,
    number    integer NOT NULL,
    app       text NOT NULL,
    record    bytea NOT NULL,
    PRIMARY KEY (workspace, delivery, number)
) PARTITION BY RANGE (delivery);

CREATE TABLE settled (
    workspace  uuid NOT NULL,
    app        text NOT NULL,
    delivery   uuid NOT NULL,
    endpoint   uuid NOT NULL,
    message    uuid NOT NULL,
    event_type text NOT NULL,
    attempts   integer NOT NULL,
    settled_at bigint NOT NULL,
    exhausted  text,
    PRIMARY KEY (workspace, app, delivery)
) PARTITION BY RANGE (delivery);
CREATE INDEX settled_exhausted ON settled (workspace, endpoint, delivery) WHERE exhausted IS NOT NULL;

-- The queue: small, and rewritten all the time. It is cleaned when a fiftieth of it is dead.
CREATE TABLE due (
    workspace               uuid NOT NULL,
    delivery                uuid NOT NULL,
    endpoint                uuid NOT NULL,
    due_at                  bigint NOT NULL,
    not_before              bigint NOT NULL,
    app                     text NOT NULL,
    message                 uuid NOT NULL,
    event_type              text NOT NULL,
    attempts                integer NOT NULL,
    attempts_before_requeue integer NOT NULL,
    PRIMARY KEY (workspace, delivery)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX due_queue ON due (workspace, endpoint, due_at, delivery);
