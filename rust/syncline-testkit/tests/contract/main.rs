//! The vectors of `contract/` against the embedded endpoint, and that they cover what they should.

mod coverage;
mod embedded;
mod served;
mod streams;
#[cfg(feature = "teeth")]
mod teeth;
