//! The reference model alone: what it takes for right is written by hand from the spec, and anything else it must refuse.

mod judge;
mod rules;
mod wire;
