-- Who works on the database. A row is a shard of it: there is one for now, and one process owns it, which
-- holds a lock as long as its connection lasts. `epoch` counts the owners, so that one which was away can
-- tell whether there was another meanwhile; `left_at` is set by an owner that stopped in order. `written` is
-- the number of the owner's last transaction, by which it learns the fate of one whose commit nobody answered.
CREATE TABLE shard_owner (
    shard    integer PRIMARY KEY,
    epoch    bigint NOT NULL,
    holder   text NOT NULL,
    written  bigint NOT NULL DEFAULT 0,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    left_at  timestamptz
);

-- Of each step: the oldest schema that a version may know and still work on this one, and the digest of
-- what was run.
ALTER TABLE migration ADD COLUMN serves integer, ADD COLUMN sha256 bytea;
