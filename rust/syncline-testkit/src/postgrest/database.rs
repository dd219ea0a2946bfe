//! Connections as `authenticator`.

use std::io;
use std::time::Duration;

use deadpool_postgres::{Manager, Object, Pool, PoolError, Runtime};
use tokio_postgres::{Config, NoTls};

use super::error::ApiError;

pub(super) struct Database(Pool);

impl Database {
    pub(super) fn new(url: &str, size: usize, timeout: Duration) -> io::Result<Self> {
        let config: Config = url.parse().map_err(io::Error::other)?;
        let builder = Pool::builder(Manager::new(config, NoTls)).max_size(size).runtime(Runtime::Tokio1);
        builder.wait_timeout(Some(timeout)).build().map(Self).map_err(io::Error::other)
    }

    /// A connection for one request.
    pub(super) async fn lend(&self) -> Result<Object, ApiError> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Timeout(_) => {
                ApiError::new(504, "PGRST003", "Timed out acquiring connection from connection pool.")
            }
            _ => ApiError::new(503, "PGRST000", "Database connection error"),
        })
    }
}
