//! The endpoint behind real loopback sockets.

mod config;
mod limits;
mod logs;
mod packing;
mod paths;
mod served;
