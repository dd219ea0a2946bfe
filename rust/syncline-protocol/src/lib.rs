//! The words both ends of Syncline speak: operations, vector clocks, push, pull and problems, exactly as `docs/protocol.md` describes them.
//!
//! Everything here is a pure value: no I/O, no clock, no randomness. Unknown JSON members are ignored everywhere, so that
//! either end may be newer than the other.

mod clock;
mod conflict;
mod limits;
mod operation;
mod payload;
mod problem;
mod pull;
mod push;
mod record;
#[cfg(feature = "teeth")]
pub mod teeth;
mod timestamp;

pub use clock::{Clock, ClockOrder, Dot};
pub use conflict::{Conflict, ConflictResult, ConflictRule, DeleteRule, FieldConflict, Winner};
pub use limits::{
    Limits, MAX_BATCH_TARGET_BYTES, MAX_COUNTER, MAX_DEPTH, MAX_ID_CHARS, MAX_INFLATED_BYTES, MAX_NAME_CHARS,
    MAX_OPERATIONS, MAX_PAYLOAD_BYTES, MAX_RECORDS_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OPERATIONS,
    check_entity_id, check_name,
};
pub use operation::OperationKind;
pub use payload::{InvalidPayload, Payload, canonical_payload, check_payload, payload_hash};
pub use problem::{Problem, ProblemClass, ProblemCode};
pub use pull::{Change, PullRequest, PullResponse};
pub use push::{FirstStatus, OperationResult, PushOperation, PushRequest, PushResponse, ResultError, Status};
pub use record::Record;
pub use timestamp::Timestamp;

/// The protocol version that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Every answer of an endpoint carries this header with [`PROTOCOL`]; an answer without it is not from an endpoint.
pub const PROTOCOL_HEADER: &str = "syncline-protocol";

/// The device id under which direct writes on the server are recorded.
pub const SERVER_DEVICE: &str = "server";

/// Whether a bug of [`teeth`] is planted on this thread: `planted!(ForgetTerm)`.
#[cfg(feature = "teeth")]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        ($crate::teeth::planted() == Some($crate::teeth::Bug::$bug))
    };
}

/// Whether a bug is planted: never, without the feature `teeth`.
#[cfg(not(feature = "teeth"))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(all(feature = "teeth", not(debug_assertions)))]
compile_error!("the feature `teeth` plants bugs: a release build must not contain it");
