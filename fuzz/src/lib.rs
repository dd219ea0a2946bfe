//! What the fuzz targets share. Each target gives bytes to one thing that reads bytes from outside, and judges what comes of it;
//! how to run them is in CONTRIBUTING.md.

pub mod database;
pub mod device;
pub mod endpoint;
pub mod jwt;
pub mod mutate;

/// The word that the planted panics wait for, deep inside a valid input. It is in no seed and in no dictionary.
const PLANTED: &[u8; 8] = b"detonate";

/// With the feature `planted`, panics if `text`, taken from the depth of an input that was understood, begins with the word.
pub fn planted(text: &str) {
    // Compared as one number, as a compiler would: that is what libFuzzer sees.
    let begins = text.as_bytes().first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    if cfg!(feature = "planted") && begins == Some(u64::from_ne_bytes(*PLANTED)) {
        panic!("the planted panic");
    }
}
