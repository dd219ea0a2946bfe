//! The endpoint behind real loopback sockets.

mod limits;
mod packing;
mod paths;
mod served;
