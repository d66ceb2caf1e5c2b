-- Several nodes on one database. A row of `node` is one start of a process. Each of its transactions begins by
-- writing there: a node whose row says that it was taken over, or that it left, can write nothing any more.
-- `lease_until` is by the clock of the database. `written` counts the node's transactions: by it the others see that it lives, and
-- itself learns the fate of one whose commit nobody answered. `view` is how far it has followed `view_head`,
-- NULL until it signs by it. `able` is whether it may own shards. `machine` and `process` say where it runs:
-- a process that has ended on the same machine need not be waited for.
CREATE TABLE node (
    id            uuid PRIMARY KEY,
    name          text NOT NULL,
    machine       text NOT NULL,
    process       integer NOT NULL,
    lease_millis  integer NOT NULL,
    joined_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until   timestamptz NOT NULL,
    backend       integer NOT NULL,
    backend_start timestamptz NOT NULL,
    written       bigint NOT NULL DEFAULT 0,
    view          bigint,
    able          boolean NOT NULL DEFAULT true,
    taken_over_by uuid,
    taken_over_at timestamptz,
    left_at       timestamptz
);

-- How often what every node holds in memory was changed. Whoever changes it holds this row until its commit, so
-- versions are in the order of commits and without gaps, and each of them is told by one row of `view_change`:
-- which things are to be read anew.
CREATE TABLE view_head (
    id      integer PRIMARY KEY,
    version bigint NOT NULL
);
INSERT INTO view_head (id, version) VALUES (0, 0);

CREATE TABLE view_change (
    version    bigint PRIMARY KEY,
    node       uuid NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    kinds      text[] NOT NULL,
    workspaces uuid[] NOT NULL,
    names      text[] NOT NULL
);

-- Of the shards, which there are all from now on, `node` is the owner; a free one has none. `epoch` grows with every owner.
-- What the process before this step wrote into `written`, `taken_at` and `left_at` is not read any more.
ALTER TABLE shard_owner ADD COLUMN node uuid;
INSERT INTO shard_owner (shard, epoch, holder) SELECT number, 0, '' FROM generate_series(0, 255) AS number
    ON CONFLICT DO NOTHING;

-- When what is remembered of a receiver was last written: by it the nodes that do not send to it follow.
ALTER TABLE endpoint ADD COLUMN receiver_at timestamptz;
CREATE INDEX endpoint_receiver_at ON endpoint (receiver_at) WHERE receiver_at IS NOT NULL;
