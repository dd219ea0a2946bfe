-- Version 1 of the device's file. Frozen: what changes later is a migration of its own.
-- docs/operation-lifecycle.md explains the words; every state that the core can hold is spelled out in a CHECK.

-- Who this file belongs to, and where it stands with the server. One row.
CREATE TABLE device (
    id                 INTEGER PRIMARY KEY CHECK (id = 1),
    user_id            TEXT    NOT NULL,
    scope              TEXT    NOT NULL,
    device_id          TEXT    NOT NULL,
    term               INTEGER NOT NULL DEFAULT 0,  -- raised by whoever begins to drain; fences older leases
    epoch              TEXT,                        -- null until the first pull
    mark               INTEGER NOT NULL DEFAULT 0,  -- pushes the server has committed for this device
    cursor             TEXT,                        -- null: pull from the start
    cursor_version     INTEGER NOT NULL DEFAULT 0,  -- every change up to this version is in `base`
    entity_types       TEXT,                        -- JSON array the cursor filters by; null: all
    reset              INTEGER NOT NULL DEFAULT 1 CHECK (reset IN (0, 1)),   -- pulling from the start, durably
    forked             INTEGER NOT NULL DEFAULT 0 CHECK (forked IN (0, 1)),  -- a new device id is due once nothing is in flight
    latest_seen_ms     INTEGER NOT NULL DEFAULT 0,  -- highest `changed_at` seen: timestamps stay above it
    retry_after_until  INTEGER,                     -- the endpoint's Retry-After, ms since 1970
    retry_after_ms     INTEGER                      -- how long that wait was; a clock that jumps cannot lengthen it
) STRICT;

-- The replica. A row stays when its entity is gone, so that the change feed can say so.
CREATE TABLE entities (
    entity             INTEGER PRIMARY KEY,
    entity_type        TEXT    NOT NULL,
    entity_id          TEXT    NOT NULL,
    base               TEXT,                        -- JSON: what the server last said; null: no live record
    base_clock         TEXT    NOT NULL DEFAULT '{}',
    base_version       INTEGER NOT NULL DEFAULT 0,  -- 0: the server never spoke of it
    base_confirmed     INTEGER NOT NULL DEFAULT 1 CHECK (base_confirmed IN (0, 1)),  -- 0: from before the reset under way
    current            TEXT,                        -- JSON: base + fold; null: no entity
    open_operations    INTEGER NOT NULL DEFAULT 0 CHECK (open_operations >= 0),      -- pending, in_progress, failed, conflicted
    applied_clock      TEXT    NOT NULL DEFAULT '{}',  -- dots of this file's applied operations
    pruned_clock       TEXT    NOT NULL DEFAULT '{}',  -- … and of those among them whose rows are gone
    last_synced_at     INTEGER,
    last_failed_sync_at INTEGER,
    failure_reason     TEXT,
    change             INTEGER NOT NULL UNIQUE,     -- local change counter: the change feed's order
    UNIQUE (entity_type, entity_id)
) STRICT;
CREATE INDEX entities_unconfirmed ON entities (entity) WHERE base_confirmed = 0;

-- The operations. `sequence` counts up without gaps or reuse: the row with the highest one is never pruned.
CREATE TABLE sync_queue (
    sequence           INTEGER PRIMARY KEY,
    id                 TEXT    NOT NULL UNIQUE,
    idempotency_key    TEXT    NOT NULL UNIQUE,
    key_try            INTEGER NOT NULL DEFAULT 1 CHECK (key_try >= 1),  -- 2 sends `key#2`, …
    content_hash       BLOB    NOT NULL,            -- of what was enqueued under the key, before any folding
    entity             INTEGER NOT NULL REFERENCES entities (entity),
    operation          TEXT    NOT NULL CHECK (operation IN ('create', 'update', 'delete')),
    payload            TEXT,                        -- canonical JSON (RFC 8785), sent unchanged
    before             TEXT    NOT NULL DEFAULT '{}',  -- JSON: base's values of the patched fields
    base_clock         TEXT    NOT NULL DEFAULT '{}',
    timestamp          INTEGER NOT NULL,
    enqueued_at        INTEGER NOT NULL,
    transaction_id     TEXT,
    max_attempts       INTEGER NOT NULL CHECK (max_attempts >= 1),
    bytes_through      INTEGER NOT NULL,            -- payload bytes of all operations up to this one
    status             TEXT    NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed', 'failed', 'conflicted', 'cancelled')),
    open               INTEGER NOT NULL DEFAULT 1 CHECK (open IN (0, 1)),    -- 1: its lane or its entity's fold still needs it
    claimed            INTEGER NOT NULL DEFAULT 0 CHECK (claimed IN (0, 1)), -- ever leased: bytes may have left the device
    decided            INTEGER NOT NULL DEFAULT 0 CHECK (decided IN (0, 1)), -- the server stored a verdict under the current key
    void               INTEGER NOT NULL DEFAULT 0 CHECK (void IN (0, 1)),    -- withdrawn; the server must confirm
    term               INTEGER,                     -- the lease
    park               INTEGER,                     -- null: not looked at yet; 0: ready again; n: waits for operation n; -1: held for bisecting
    attempts           INTEGER NOT NULL DEFAULT 0,
    waits              INTEGER NOT NULL DEFAULT 0,  -- backoffs in a row, charged or not: the exponent
    next_attempt_at    INTEGER,
    backoff_ms         INTEGER,                     -- how long that wait is at the most
    reason             TEXT,                        -- code: why it failed, waits or was cancelled
    message            TEXT,                        -- a sentence for people; never a payload
    field              TEXT,
    culprit            TEXT,                        -- transaction_failed: the operation at fault
    survivor           INTEGER,                     -- coalesced into this operation
    verdict            TEXT CHECK (verdict IN ('applied', 'merged')),
    verdict_version    INTEGER,
    dot_device         TEXT,                        -- under which dot it was applied
    dot_sequence       INTEGER,
    ended_at           INTEGER,
    CHECK ((status = 'in_progress') = (term IS NOT NULL)),
    CHECK (void = 0 OR (status IN ('pending', 'in_progress') AND claimed = 1)),
    CHECK ((status = 'completed') = (verdict IS NOT NULL)),
    CHECK ((status IN ('completed', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK (status <> 'cancelled' OR (open = 0 AND reason IS NOT NULL)),
    CHECK (status = 'cancelled' OR status = 'completed' OR open = 1),
    CHECK (status <> 'failed' OR reason IS NOT NULL),
    CHECK (status = 'pending' OR (park IS NULL AND next_attempt_at IS NULL)),
    CHECK (next_attempt_at IS NULL OR park = 0),
    CHECK ((next_attempt_at IS NULL) = (backoff_ms IS NULL))
) STRICT;
CREATE INDEX sync_queue_lane ON sync_queue (entity, sequence) WHERE open = 1;
-- Only rows out of the ordinary are in these; an operation that waits for its first try costs none of them.
CREATE INDEX sync_queue_in_progress ON sync_queue (sequence) WHERE status = 'in_progress';
CREATE INDEX sync_queue_troubled ON sync_queue (status, sequence) WHERE status IN ('failed', 'conflicted');
CREATE INDEX sync_queue_parked ON sync_queue (park, sequence) WHERE park IS NOT NULL;
CREATE INDEX sync_queue_backoff ON sync_queue (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX sync_queue_unfolded ON sync_queue (verdict_version) WHERE status = 'completed' AND open = 1;
CREATE INDEX sync_queue_group ON sync_queue (transaction_id, sequence) WHERE transaction_id IS NOT NULL;
CREATE INDEX sync_queue_ended ON sync_queue (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sync_queue_folded ON sync_queue (survivor) WHERE survivor IS NOT NULL;

-- What an operation declared to wait for. `depends_on` is a sequence; a row outlives the operation it points to.
CREATE TABLE dependencies (
    sequence           INTEGER NOT NULL,
    depends_on         INTEGER NOT NULL,
    depends_on_id      TEXT    NOT NULL,
    PRIMARY KEY (sequence, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependencies_on ON dependencies (depends_on);

-- The ledger: one row per operation that met a conflict.
CREATE TABLE conflicts (
    id                 TEXT    PRIMARY KEY,
    operation_id       TEXT    NOT NULL,
    sequence           INTEGER NOT NULL,
    entity_type        TEXT    NOT NULL,
    entity_id          TEXT    NOT NULL,
    conflict           TEXT    NOT NULL,            -- JSON: the wire's object, always with base
    detected_at        INTEGER NOT NULL,
    resolution         TEXT CHECK (resolution IN ('take_local', 'take_remote', 'merged', 'discarded')),  -- manual ones only
    resolved_at        INTEGER,
    reopened_by        TEXT                         -- the operation that restored the losing value
) STRICT;
CREATE INDEX conflicts_operation ON conflicts (operation_id);
CREATE INDEX conflicts_entity ON conflicts (entity_type, entity_id);
CREATE INDEX conflicts_unresolved ON conflicts (detected_at) WHERE resolution IS NULL;

-- Totals that no scan may compute. `pending` is what remains of the highest sequence. One row.
CREATE TABLE counters (
    id                 INTEGER PRIMARY KEY CHECK (id = 1),
    in_progress        INTEGER NOT NULL DEFAULT 0,
    failed             INTEGER NOT NULL DEFAULT 0,
    conflicted         INTEGER NOT NULL DEFAULT 0,
    completed_total    INTEGER NOT NULL DEFAULT 0,
    cancelled_total    INTEGER NOT NULL DEFAULT 0,
    conflicts_detected INTEGER NOT NULL DEFAULT 0,
    bytes_ended        INTEGER NOT NULL DEFAULT 0,  -- payload bytes no longer waiting; folding may make it negative
    low_water          INTEGER NOT NULL DEFAULT 1,  -- no operation below it is pending or in progress
    last_successful_sync INTEGER,
    latencies          TEXT    NOT NULL DEFAULT '[]'  -- JSON: counts per power-of-two^(1/4) bucket of milliseconds, then the sum
) STRICT;
