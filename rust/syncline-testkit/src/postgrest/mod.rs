//! A stand-in for Supabase's Data API: the part of PostgREST's documented behaviour that Syncline stands on, over a real Postgres.
//! PostgREST itself cannot be had in tests. What is here, and where PostgREST's documentation says so, is in
//! `docs/postgrest-shim.md`, a row for each behaviour, each with a test.
//!
//! Not here: tables and views, filters, embedding, `Prefer`, cookies, media types other than JSON. The schema cache is read
//! anew for each request, so that no reload is needed after a migration.

mod call;
mod database;
mod error;
mod function;
mod http;
mod request;
mod settings;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use syncline_protocol::Timestamp;
use syncline_server::auth::Verifier;
use tokio::net::TcpListener;

use database::Database;

/// Makes the roles of a Supabase project, where they are missing, with their time limits. For the superuser.
pub const ROLES: &str = include_str!("roles.sql");

/// The role of a request without a token.
pub const ANON: &str = "anon";

/// What PostgREST is configured with, as far as it is followed here.
pub struct Settings {
    /// How to connect, as the role `authenticator`; more connections than one are opened as needed.
    pub database: String,
    /// `db-schemas`: the first is the default one.
    pub schemas: Vec<String>,
    /// `db-pool`: connections at most.
    pub pool: usize,
    /// `db-pool-acquisition-timeout`.
    pub acquisition_timeout: Duration,
    /// Verifies tokens; their audience is the verifier's matter.
    pub verifier: Verifier,
    /// What Supabase's gateway in front wants to see in the header `apikey`; none: anything goes.
    pub publishable_key: Option<String>,
    /// The time, for tokens.
    pub now: fn() -> Timestamp,
}

/// The stand-in.
#[derive(Clone)]
pub struct PostgRest(Arc<Parts>);

struct Parts {
    database: Database,
    schemas: Vec<String>,
    verifier: Verifier,
    publishable_key: Option<String>,
    now: fn() -> Timestamp,
}

impl PostgRest {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The connection's configuration cannot be read.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let Settings { schemas, verifier, publishable_key, now, .. } = settings;
        let database = Database::new(&settings.database, settings.pool, settings.acquisition_timeout)?;
        Ok(Self(Arc::new(Parts { database, schemas, verifier, publishable_key, now })))
    }

    /// Serves below `/rest/v1`, as a Supabase project does, until `shutdown` resolves.
    ///
    /// # Errors
    /// The socket's.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        axum::serve(listener, self.router()).with_graceful_shutdown(shutdown).await
    }
}
