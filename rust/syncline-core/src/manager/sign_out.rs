use std::time::Duration;

use super::SyncManager;
use super::primitives::Arc;
use crate::error::{Result, SynclineError};
use crate::store::Unsent;

/// What becomes of operations that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOutMode {
    /// They are sent first, for so long at the most; what is left is kept.
    Flush(Duration),
    /// They stay, and are sent when the same user opens the file again.
    Keep,
    /// They are withdrawn, as by `cancel` and `discard`: what may have left the device is withdrawn on the server when the
    /// same user opens the file again. To remove every trace from the device, delete the file afterwards.
    Discard,
}

/// What signing out left behind or, with [`SignOutMode::Discard`], withdrew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignOut {
    /// Operations that had not ended.
    pub unsent: u64,
    /// Those among them that may have reached the server all the same.
    pub unknown_outcome: u64,
}

impl From<Unsent> for SignOut {
    fn from(unsent: Unsent) -> Self {
        Self { unsent: unsent.operations, unknown_outcome: unsent.unknown_outcome }
    }
}

impl SyncManager {
    /// What signing out would leave behind now: what to ask the user about.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn unsent(&self) -> Result<SignOut> {
        self.handle.shared.on_file(|device| device.store.unsent()).map(SignOut::from)
    }

    /// Ends delivery, does with what has not ended as `mode` says, and closes the manager. The file stays.
    ///
    /// # Errors
    /// `StorageFull`, `Storage` (the manager stays open then), `Closed`. That flushing fails is no error: what is left is counted.
    pub async fn sign_out(&self, mode: SignOutMode) -> Result<SignOut> {
        let shared = Arc::clone(&self.handle.shared);
        self.on_runtime(async move {
            if let SignOutMode::Flush(timeout) = mode
                && let Err(SynclineError::Closed) = shared.drain_until(timeout).await
            {
                return Err(SynclineError::Closed);
            }
            let now = shared.environment.clock.now();
            let left = shared.on_file(|device| {
                // Given up first, so that the count is of what stays.
                drop(device.disengage(&shared.environment));
                let left = device.store.unsent()?;
                if mode == SignOutMode::Discard {
                    device.store.discard_all(now)?;
                }
                Ok(left)
            })?;
            shared.close(true);
            Ok(left.into())
        })
        .await
    }
}
