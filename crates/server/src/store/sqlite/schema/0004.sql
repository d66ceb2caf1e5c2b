-- The marks by which secrets are found again: keyed hashes, kept when the value is erased. Without a mark
-- yet are those that were made before there were marks.
CREATE TABLE secret_mark (
    workspace INTEGER NOT NULL,
    keyring   BLOB NOT NULL,
    secret    BLOB NOT NULL,
    mark      BLOB,
    PRIMARY KEY (workspace, keyring, secret)
) STRICT, WITHOUT ROWID;
CREATE INDEX secret_mark_found ON secret_mark (mark) WHERE mark IS NOT NULL;
CREATE INDEX secret_mark_missing ON secret_mark (secret) WHERE mark IS NULL;
INSERT INTO secret_mark (workspace, keyring, secret) SELECT workspace, keyring, id FROM secret;

-- Bulk rotations and their items, in the order in which they are rotated. `kind` repeats the kind of the
-- item's state, `is_open` whether the bulk rotation is not over.
CREATE TABLE bulk (
    workspace INTEGER NOT NULL,
    id        BLOB NOT NULL,
    version   INTEGER NOT NULL,
    is_open   INTEGER NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_open ON bulk (workspace, id) WHERE is_open;

CREATE TABLE bulk_item (
    workspace INTEGER NOT NULL,
    bulk      BLOB NOT NULL,
    position  INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, bulk, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_item_kind ON bulk_item (workspace, bulk, kind, position);
