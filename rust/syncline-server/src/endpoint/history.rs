use syncline_protocol::{Problem, ProblemCode, Timestamp, planted};

use super::cursor::Cursor;
use super::{Failure, Random, new_id};
use crate::store::{ScopeRow, Transaction};

/// What a device says of the history it knows.
pub(super) struct Seen<'a> {
    /// The epoch.
    pub(super) epoch: Option<&'a str>,
    /// The highest mark recorded.
    pub(super) mark: u64,
    /// The cursor, as far as it can be read.
    pub(super) cursor: Option<&'a Cursor>,
    /// Whether a device that knows no epoch is served: by a pull it is, by a push not.
    pub(super) may_be_new: bool,
}

/// Brings the scope into being on first use, and compares its history with the one that the device knows (spec §6).
///
/// # Errors
/// `server_behind` if they differ. If the server itself went back, its new epoch is committed before that.
pub(super) fn open_scope<'t>(
    mut transaction: Box<dyn Transaction + 't>,
    scope: &str,
    known_mark: u64,
    seen: &Seen<'_>,
    now: Timestamp,
    random: &mut dyn Random,
) -> Result<(ScopeRow, Box<dyn Transaction + 't>), Failure> {
    let stored = transaction.scope()?;
    let is_new = stored.is_none();
    let mut row = stored.unwrap_or_else(|| ScopeRow { head: 0, epoch: new_id(now, random), purged_through: 0 });
    let of_this_history = |epoch: &str| epoch == row.epoch;
    let mark_ahead = seen.epoch.is_some_and(of_this_history) && seen.mark > known_mark && !planted!(ForgetMarks);
    let cursor_ahead = seen.cursor.is_some_and(|cursor| cursor.is_of(scope, &row) && cursor.version > row.head);
    let known = match seen.epoch {
        Some(epoch) => (of_this_history(epoch) || planted!(ForgetEpoch)) && !mark_ahead,
        None => (seen.may_be_new || planted!(PushWithoutEpoch)) && seen.mark <= known_mark,
    };
    let went_back = mark_ahead || cursor_ahead;
    if went_back {
        row.epoch = new_id(now, random);
    }
    if went_back || is_new {
        transaction.put_scope(&row)?;
    }
    if known && !cursor_ahead {
        return Ok((row, transaction));
    }
    transaction.commit()?;
    let problem = Problem::new(ProblemCode::ServerBehind);
    Err(Problem { epoch: Some(row.epoch), mark: Some(known_mark), ..problem }.into())
}
