//! Each behaviour of the stand-in for PostgREST, as `docs/postgrest-shim.md` lists them.

mod answers;
mod calls;
mod device;
mod errors;
mod stage;
mod who;
