//! Everything that synchronises threads comes from here, so that with the feature `shuttle` a test chooses who goes on at
//! every lock, wait and signal of the code as it ships (see `manager/schedules`).

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::Ordering;

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(in crate::manager) use std::sync::atomic::{AtomicBool, AtomicU64};

    pub(in crate::manager) use parking_lot::{Condvar, Mutex};
    pub(in crate::manager) use tokio::sync::{Notify, oneshot, watch};
}
#[cfg(not(feature = "shuttle"))]
pub(super) use real::*;

#[cfg(feature = "shuttle")]
mod shuttled;
#[cfg(feature = "shuttle")]
pub(super) use shuttled::*;
