//! Tokens: what opens the endpoint, and what does not. The keys under `keys/` were made for these tests and open nothing else.

mod forge;
mod jwks;
mod vectors;
