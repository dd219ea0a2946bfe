//! No panic leaves the library: a foreign caller could not tell it from a crash.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::SynclineError;

pub(crate) type Result<T> = std::result::Result<T, SynclineError>;

/// Does `work`; a panic in it is [`SynclineError::Internal`].
pub(crate) fn contained<T, E: Into<SynclineError>>(work: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| internal(&*panic))?.map_err(Into::into)
}

/// The same for a future: each time that it is polled.
pub(crate) async fn contained_async<T, E: Into<SynclineError>>(
    work: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T> {
    let mut work = pin!(work);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        let work: Pin<&mut _> = work.as_mut();
        match catch_unwind(AssertUnwindSafe(|| work.poll(context))) {
            Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(Into::into)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(internal(&*panic))),
        }
    })
    .await
}

fn internal(panic: &(dyn Any + Send)) -> SynclineError {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    log::error!("a fault of Syncline's own: {text}");
    SynclineError::Internal { text: format!("a fault of Syncline's own: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let broken = contained(|| -> Result<()> { panic!("no such case") });
        assert!(matches!(broken, Err(SynclineError::Internal { text }) if text.ends_with("no such case")));
        assert_eq!(contained(|| Ok::<_, SynclineError>(1)), Ok(1));
    }

    #[tokio::test]
    async fn a_panic_of_a_future_is_an_error() {
        let broken = contained_async(async {
            tokio::task::yield_now().await;
            if true {
                panic!("no such case {}", 7)
            }
            Ok::<(), SynclineError>(())
        })
        .await;
        assert!(matches!(broken, Err(SynclineError::Internal { text }) if text.ends_with("no such case 7")));
    }
}
