//! The simulator. One seed draws one [`plan::Plan`]; [`life::live`] lives it on two to five whole devices over the endpoint, in
//! virtual time and on disks in memory, with every fault there is, and holds the world against the oracle after every step. In
//! the end the faults stop, time passes, the users decide what is left, and everybody must agree.

mod account;
pub mod coverage;
pub mod draw;
mod faults;
mod focus;
pub(crate) mod hostile;
pub mod hunt;
pub mod life;
pub mod plan;
mod shrink;
pub mod situations;
mod user;
mod watched;
