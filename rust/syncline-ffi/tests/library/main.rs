//! The library as a platform uses it, with the real core, against a real endpoint over HTTP.

#![allow(clippy::disallowed_methods, reason = "a platform has a clock and threads of its own")]

mod app;
mod calls;
mod credentials;
mod delivery;
mod events;
mod surface;
