//! What the fuzz targets share. Each target gives bytes to one thing that reads bytes from outside, and judges what comes of it;
//! how to run them is in docs/proof.md.

pub mod database;
pub mod device;
pub mod endpoint;
pub mod jwt;
pub mod mutate;

/// With the feature `planted`, panics if `found`: something that no seed holds, in the depth of an input that was understood.
pub fn planted(found: bool) {
    if cfg!(feature = "planted") && found {
        panic!("the planted panic");
    }
}
