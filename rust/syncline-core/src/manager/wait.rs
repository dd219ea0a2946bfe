//! Waiting for an operation's verdict. Whatever commits raises the progress counter; then the operation is looked at again.
//! Another process may be the one that drains, and raises nothing here: therefore a look at intervals, too.

use std::time::Duration;

use super::primitives::Arc;
use super::shared::Shared;
use super::tasks::{First, race};
use crate::error::{Result, SynclineError};
use crate::operation::{Operation, OperationStatus};

/// How often the file is looked at for what other processes did.
const LOOK: Duration = Duration::from_secs(1);

impl Shared {
    /// Calls `look` after every change until it gives a value; none when the time is over.
    pub(super) async fn until<T>(
        self: &Arc<Self>,
        timeout: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut progress = self.progress.subscribe();
        let over = self.environment.runtime.sleep(timeout);
        let mut over = std::pin::pin!(over);
        loop {
            progress.borrow_and_update();
            if let Some(value) = look(self)? {
                return Ok(Some(value));
            }
            let changed = race(progress.changed(), self.environment.runtime.sleep(LOOK));
            if let First::Other(()) = race(changed, over.as_mut()).await {
                return look(self);
            }
        }
    }

    /// Waits until the operation, or the one it was folded into, is neither pending nor in progress.
    pub(super) async fn wait_for(self: &Arc<Self>, id: &str, timeout: Duration) -> Result<Operation> {
        let mut last = None;
        let settled = self.until(timeout, |shared| {
            match shared.read(|reader| reader.survivor(id))? {
                Some(operation) => {
                    let settled = is_settled(&operation).then(|| operation.clone());
                    last = Some(operation);
                    Ok(settled)
                }
                // Pruned while we waited, hence ended; or never there.
                None => match last.take() {
                    Some(operation) => Ok(Some(operation)),
                    None => Err(SynclineError::not_possible("there is no such operation, or it was pruned")),
                },
            }
        });
        settled.await?.ok_or(SynclineError::Timeout)
    }
}

/// Whether nothing more happens to it without the user.
pub(super) fn is_settled(operation: &Operation) -> bool {
    !matches!(operation.status, OperationStatus::Pending | OperationStatus::InProgress)
}
