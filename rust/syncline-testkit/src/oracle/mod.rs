//! The oracle: what must be true of a world, in plain Rust over plain values. It asks neither the core nor the endpoint how things
//! should be; it reads their files, remembers what the app was told, and holds one against the other.
//!
//! - `observe` reads a device's file; `effects` compares it with the endpoint's, `server` has the rules about that alone.
//! - `wire` remembers what was sent and heard, and `changes` has the rules about what may follow from it.
//! - `queue` has the rules about one file, `journal` those about what the app was told, `reasons` those about `explain`.
//! - The endpoint's answers and state are judged by [`crate::model`].

pub(crate) mod changes;
pub(crate) mod effects;
pub(crate) mod journal;
pub(crate) mod observe;
pub(crate) mod queue;
pub(crate) mod reasons;
pub(crate) mod server;
pub(crate) mod wire;

/// A rule holds, or what broke it. The text begins with the rule's name and a colon.
pub(crate) type Verdict = Result<(), String>;

/// Gives up with a text unless a condition holds.
macro_rules! hold {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use hold;
