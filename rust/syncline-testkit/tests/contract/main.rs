//! The vectors of `contract/` against the embedded endpoint, and that they cover what they should.

mod coverage;
mod embedded;
mod served;
#[cfg(feature = "teeth")]
mod teeth;
