//! Everything that synchronises threads comes from here, so that a model checker can be put in its place.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) use parking_lot::{Condvar, Mutex};
pub(super) use tokio::sync::{Notify, oneshot, watch};
