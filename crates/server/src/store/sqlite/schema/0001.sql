-- The first schema. Times are milliseconds since the epoch; ids are 16 bytes that sort by creation.
-- Documents are JSON with the field names of the domain types. `workspace` and `endpoint` columns of
-- the traffic tables hold the small numbers that their owners got here: they stand in millions of rows.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Configuration: small, versioned, changed with compare-and-swap.
CREATE TABLE workspace (
    number   INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE,
    name     TEXT NOT NULL UNIQUE,
    version  INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;

CREATE TABLE api_key (
    id           BLOB PRIMARY KEY,
    hash         BLOB NOT NULL UNIQUE,
    version      INTEGER NOT NULL,
    document     TEXT NOT NULL,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE app (
    workspace INTEGER NOT NULL,
    id        TEXT NOT NULL,
    version   INTEGER NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT, WITHOUT ROWID;

-- A number is never given out twice: what refers to a forgotten endpoint must not find another.
CREATE TABLE endpoint (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace  INTEGER NOT NULL,
    app        TEXT NOT NULL,
    id         BLOB NOT NULL UNIQUE,
    version    INTEGER NOT NULL,
    document   TEXT NOT NULL,
    deleted_at INTEGER,
    receiver   TEXT
) STRICT;
CREATE INDEX endpoint_app ON endpoint (workspace, app);
CREATE INDEX endpoint_deleted ON endpoint (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE keyring (
    workspace INTEGER NOT NULL,
    id        BLOB NOT NULL,
    version   INTEGER NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
    workspace INTEGER NOT NULL,
    keyring   BLOB NOT NULL,
    id        BLOB NOT NULL,
    version   INTEGER NOT NULL,
    sealed    BLOB NOT NULL,
    PRIMARY KEY (workspace, keyring, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE rotation (
    workspace INTEGER NOT NULL,
    id        BLOB NOT NULL,
    keyring   BLOB NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX rotation_keyring ON rotation (workspace, keyring, id);

-- Append-only and hash-chained per workspace.
CREATE TABLE audit (
    workspace INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    document  TEXT NOT NULL,
    hash      BLOB NOT NULL,
    PRIMARY KEY (workspace, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TABLE idempotency (
    key         BLOB PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    response    BLOB NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE event_type (
    number    INTEGER PRIMARY KEY,
    workspace INTEGER NOT NULL,
    name      TEXT NOT NULL,
    UNIQUE (workspace, name)
) STRICT;

-- Traffic: immutable messages and attempts; a due row while a delivery is pending; a settled row after.
CREATE TABLE message (
    number      INTEGER PRIMARY KEY,
    workspace   INTEGER NOT NULL,
    app         TEXT NOT NULL,
    id          BLOB NOT NULL,
    event_type  INTEGER NOT NULL,
    event_id    TEXT,
    accepted_at INTEGER NOT NULL,
    payload     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_id ON message (workspace, app, id);

CREATE TABLE due (
    endpoint                INTEGER NOT NULL,
    due_at                  INTEGER NOT NULL,
    delivery                BLOB NOT NULL,
    message                 INTEGER NOT NULL,
    attempts                INTEGER NOT NULL,
    attempts_before_requeue INTEGER NOT NULL,
    not_before              INTEGER NOT NULL,
    PRIMARY KEY (endpoint, due_at, delivery)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX due_delivery ON due (delivery);

CREATE TABLE attempt (
    delivery BLOB NOT NULL,
    number   INTEGER NOT NULL,
    app      TEXT NOT NULL,
    record   BLOB NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE settled (
    workspace  INTEGER NOT NULL,
    app        TEXT NOT NULL,
    delivery   BLOB NOT NULL,
    endpoint   INTEGER NOT NULL,
    message    BLOB NOT NULL,
    event_type INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    settled_at INTEGER NOT NULL,
    exhausted  TEXT,
    PRIMARY KEY (workspace, app, delivery)
) STRICT, WITHOUT ROWID;
CREATE INDEX settled_exhausted ON settled (endpoint, delivery) WHERE exhausted IS NOT NULL;
