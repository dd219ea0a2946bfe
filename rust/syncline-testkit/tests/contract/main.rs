//! The vectors of `contract/` against the embedded endpoint, and that they cover what they should.

mod coverage;
mod embedded;
#[cfg(feature = "teeth")]
mod teeth;
