//! What the explanation of an operation rests on, read in one snapshot.

use rusqlite::{Connection, OptionalExtension, Row, params};
use syncline_protocol::{OperationKind, Timestamp};

use super::read::{OPERATION_COLUMNS, read_operation};
use super::row::QueueRow;
use crate::error::Result;
use crate::operation::{Operation, OperationStatus};

/// An operation and all that may stand in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExplainFacts {
    /// The operation; after coalescing, the one it was folded into.
    pub operation: Operation,
    /// Held by the driver while it searches for a bad operation.
    pub held: bool,
    /// Bytes of it may have reached the server, and no verdict is stored.
    pub outcome_unknown: bool,
    /// The nearest earlier operation of its entity that has not ended.
    pub predecessor: Option<BlockerFacts>,
    /// Operations it depends on that have not ended.
    pub dependencies: Vec<BlockerFacts>,
    /// What other members of its transaction come after, or depend on, and has not ended.
    pub members: Vec<BlockerFacts>,
    /// The device has an epoch: it has pulled at least once.
    pub epoch_known: bool,
}

/// An operation that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockerFacts {
    pub id: String,
    pub sequence: u64,
    pub kind: OperationKind,
    pub entity_type: String,
    pub status: OperationStatus,
    pub void: bool,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub next_attempt_at: Option<Timestamp>,
    /// What it is parked on itself, if that is of another lane. Of the same lane, the root stands here in its place.
    pub behind: Option<Box<BlockerFacts>>,
}

impl ExplainFacts {
    /// The facts as they are at a moment: a wait that is over holds nobody up, whether or not delivery has run since.
    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        self.operation.next_attempt_at = self.operation.next_attempt_at.filter(|at| *at > now);
        let others = self.dependencies.iter_mut().chain(&mut self.members);
        self.predecessor.iter_mut().chain(others).for_each(|blocker| blocker.forget_past(now));
        self
    }
}

impl BlockerFacts {
    fn forget_past(&mut self, now: Timestamp) {
        self.next_attempt_at = self.next_attempt_at.filter(|at| *at > now);
        if let Some(root) = &mut self.behind {
            root.forget_past(now);
        }
    }
}

/// The facts about the operation with this id; `None` if it is unknown or was pruned.
pub(super) fn read_facts(conn: &Connection, id: &str) -> Result<Option<ExplainFacts>> {
    let Some(mut row) = QueueRow::find_id(conn, id)? else { return Ok(None) };
    if let Some(survivor) = row.survivor
        && let Some(found) = QueueRow::find(conn, survivor)?
    {
        row = found;
    }
    let operation = conn
        .prepare_cached(&format!("SELECT {OPERATION_COLUMNS} WHERE q.sequence = ?1"))?
        .query_row([row.sequence], read_operation)?;
    let held: bool = conn
        .prepare_cached("SELECT park IS -1 FROM sync_queue WHERE sequence = ?1")?
        .query_row([row.sequence], |found| found.get(0))?;
    // A blocker within the group goes together with it and blocks nothing.
    let outside = |blocker: &BlockerFacts| !in_group(conn, blocker, &row);
    let mut members = Vec::new();
    for other in row.group(conn)?.iter().filter(|other| other.sequence != row.sequence) {
        members.extend(predecessor(conn, other)?.filter(outside));
        members.extend(dependencies(conn, other)?.into_iter().filter(outside));
    }
    Ok(Some(ExplainFacts {
        held,
        outcome_unknown: row.claimed && !row.decided,
        predecessor: predecessor(conn, &row)?.filter(outside),
        dependencies: dependencies(conn, &row)?.into_iter().filter(outside).collect(),
        members,
        epoch_known: conn
            .prepare_cached("SELECT epoch IS NOT NULL FROM device")?
            .query_row([], |found| found.get(0))?,
        operation,
    }))
}

fn in_group(conn: &Connection, blocker: &BlockerFacts, row: &QueueRow) -> bool {
    row.transaction_id.is_some()
        && matches!(QueueRow::find(conn, blocker.sequence), Ok(Some(found)) if found.transaction_id == row.transaction_id)
}

const BLOCKER: &str =
    "SELECT q.id, q.sequence, q.operation, e.entity_type, q.status, q.void, q.reason, q.message, q.next_attempt_at,
    q.park FROM sync_queue q JOIN entities e ON e.entity = q.entity";

fn predecessor(conn: &Connection, row: &QueueRow) -> Result<Option<BlockerFacts>> {
    let sql = format!(
        "{BLOCKER} WHERE q.entity = ?1 AND q.open = 1 AND q.sequence < ?2 AND q.status <> 'completed'
         ORDER BY q.sequence DESC LIMIT 1"
    );
    let found = conn.prepare_cached(&sql)?.query_row(params![row.entity, row.sequence], read_blocker).optional()?;
    found.map(|found| rooted(conn, found, row.entity)).transpose()
}

fn dependencies(conn: &Connection, row: &QueueRow) -> Result<Vec<BlockerFacts>> {
    if row.void {
        return Ok(Vec::new());
    }
    let sql = format!(
        "{BLOCKER} JOIN dependencies d ON d.depends_on = q.sequence
         WHERE d.sequence = ?1 AND q.status NOT IN ('completed', 'cancelled') ORDER BY q.sequence"
    );
    let found: Vec<_> =
        conn.prepare_cached(&sql)?.query_map([row.sequence], read_blocker)?.collect::<rusqlite::Result<_>>()?;
    found.into_iter().map(|blocker| rooted(conn, blocker, row.entity)).collect()
}

/// With what a blocker waits for itself: the nearest one may be innocent.
fn rooted(conn: &Connection, (mut blocker, park): (BlockerFacts, Option<i64>), lane: i64) -> Result<BlockerFacts> {
    // A withdrawal holds up what comes after it whatever it waits for itself.
    let Some(root) = park.filter(|on| *on > 0 && !blocker.void) else { return Ok(blocker) };
    let sql = format!("{BLOCKER} WHERE q.sequence = ?1");
    let Some((root, _)) = conn.prepare_cached(&sql)?.query_row([root], read_blocker).optional()? else {
        return Ok(blocker);
    };
    let same_lane = QueueRow::find(conn, root.sequence)?.is_some_and(|found| found.entity == lane);
    if same_lane {
        return Ok(root);
    }
    blocker.behind = Some(Box::new(root));
    Ok(blocker)
}

fn read_blocker(row: &Row<'_>) -> rusqlite::Result<(BlockerFacts, Option<i64>)> {
    let kind: String = row.get(2)?;
    let status: String = row.get(4)?;
    let blocker = BlockerFacts {
        id: row.get(0)?,
        sequence: row.get(1)?,
        kind: OperationKind::parse(&kind).ok_or(rusqlite::Error::InvalidQuery)?,
        entity_type: row.get(3)?,
        status: OperationStatus::parse(&status).ok_or(rusqlite::Error::InvalidQuery)?,
        void: row.get(5)?,
        reason: row.get(6)?,
        message: row.get(7)?,
        next_attempt_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis),
        behind: None,
    };
    Ok((blocker, row.get(9)?))
}
