-- Up to which entry the audit log of a workspace was turned into operational events. What was written before
-- there were any is history, and nobody is told of it now.
CREATE TABLE reported (
    workspace INTEGER PRIMARY KEY,
    seq       INTEGER NOT NULL
) STRICT;
INSERT INTO reported (workspace, seq) SELECT workspace, max(seq) FROM audit GROUP BY workspace;

-- What the owner of a keyring was told about its open rotation.
CREATE TABLE noted (
    workspace INTEGER NOT NULL,
    keyring   BLOB NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, keyring)
) STRICT, WITHOUT ROWID;

-- Rules by which rotations are opened, and what each did for each keyring.
CREATE TABLE schedule (
    workspace INTEGER NOT NULL,
    id        BLOB NOT NULL,
    version   INTEGER NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE schedule_note (
    workspace INTEGER NOT NULL,
    schedule  BLOB NOT NULL,
    keyring   BLOB NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (workspace, schedule, keyring)
) STRICT, WITHOUT ROWID;
