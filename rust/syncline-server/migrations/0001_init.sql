-- Every table is keyed by scope first: the sharding key. Every statement names exactly one scope.

CREATE TABLE scopes (
    scope          TEXT    NOT NULL PRIMARY KEY,
    head           INTEGER NOT NULL CHECK (head >= 0),
    epoch          TEXT    NOT NULL,
    purged_through INTEGER NOT NULL CHECK (purged_through BETWEEN 0 AND head)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    scope             TEXT    NOT NULL,
    device_id         TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    mark              INTEGER NOT NULL CHECK (mark >= 0),
    forgotten_through INTEGER NOT NULL CHECK (forgotten_through >= 0),
    PRIMARY KEY (scope, device_id)
) STRICT, WITHOUT ROWID;

-- `fields`: name -> [device id, sequence, milliseconds]; `created_by`, `deleted_by`: the same triple.
-- A tombstone keeps its last payload, because a write that has not seen the deletion may revive it.
CREATE TABLE entities (
    scope       TEXT    NOT NULL,
    entity_type TEXT    NOT NULL,
    entity_id   TEXT    NOT NULL,
    version     INTEGER NOT NULL CHECK (version > 0),
    deleted     INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    payload     TEXT    NOT NULL,
    clock       TEXT    NOT NULL,
    fields      TEXT    NOT NULL,
    created_by  TEXT    NOT NULL,
    deleted_by  TEXT,
    stored_at   INTEGER NOT NULL,
    PRIMARY KEY (scope, entity_type, entity_id),
    CHECK ((deleted = 1) = (deleted_by IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX entities_by_version ON entities (scope, version);
CREATE INDEX tombstones_by_age ON entities (scope, stored_at) WHERE deleted = 1;

CREATE TABLE operations (
    scope           TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    operation_id    TEXT    NOT NULL,
    device_id       TEXT    NOT NULL,
    sequence        INTEGER NOT NULL CHECK (sequence > 0),
    operation       TEXT    NOT NULL CHECK (operation IN ('create', 'update', 'delete')),
    entity_type     TEXT    NOT NULL,
    entity_id       TEXT    NOT NULL,
    payload_hash    BLOB    NOT NULL CHECK (length(payload_hash) = 32),
    verdict         TEXT    NOT NULL CHECK (verdict IN ('applied', 'merged', 'conflict', 'rejected')),
    error           TEXT,
    conflict_id     TEXT,
    decided_at      INTEGER NOT NULL,
    PRIMARY KEY (scope, idempotency_key),
    CHECK ((verdict = 'rejected') = (error IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX applied_operations ON operations (scope, device_id, sequence) WHERE verdict IN ('applied', 'merged');
CREATE INDEX operations_by_age ON operations (scope, decided_at);

-- The ledger. `conflict` is the object of the wire.
CREATE TABLE conflicts (
    scope        TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    operation_id TEXT    NOT NULL,
    entity_type  TEXT    NOT NULL,
    entity_id    TEXT    NOT NULL,
    rule         TEXT    NOT NULL,
    result       TEXT    NOT NULL CHECK (result IN ('merged', 'conflict')),
    decided_at   INTEGER NOT NULL,
    conflict     TEXT    NOT NULL,
    PRIMARY KEY (scope, id)
) STRICT;

CREATE INDEX conflicts_by_entity ON conflicts (scope, entity_type, entity_id);
