//! Small futures: a race, a panic caught, and work handed to the runtime's threads.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use super::primitives::oneshot;
use crate::environment::Runtime;
use crate::error::{Result, SynclineError};

/// Which of two futures ended first.
pub(super) enum First<A, B> {
    This(A),
    Other(B),
}

/// Runs both until one ends, and drops the other. Where both have ended, the first one counts.
pub(super) async fn race<A: Future, B: Future>(this: A, other: B) -> First<A::Output, B::Output> {
    let mut this = pin!(this);
    let mut other = pin!(other);
    poll_fn(|context| {
        if let Poll::Ready(value) = this.as_mut().poll(context) {
            return Poll::Ready(First::This(value));
        }
        other.as_mut().poll(context).map(First::Other)
    })
    .await
}

/// The future's value, or none if it panicked: foreign code may fail without taking delivery with it.
pub(super) async fn catch<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Runs `future` as a task, so that whoever awaits it never does our work on a thread of theirs (a user interface's,
/// say). Dropping the returned future drops the task.
pub(super) async fn on_runtime<T: Send + 'static>(
    runtime: &dyn Runtime,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (mut sender, receiver) = oneshot::channel();
    runtime.spawn(Box::pin(async move {
        if let First::This(value) = race(future, sender.closed()).await {
            // Nobody waits any more.
            let _ = sender.send(value);
        }
    }));
    // Without an answer the runtime has gone, which only happens after close.
    receiver.await.unwrap_or(Err(SynclineError::Closed))
}
