//! Postgres as the endpoint: the functions in `supabase/migrations` decide, this side connects, retries and translates.
//!
//! One request is one statement (`syncline.serve`), so no lock is held while anything travels, and a statement that never
//! reached its commit has left nothing. Serialization failures and deadlocks are therefore sent again, a few times; everything
//! else that may pass is answered `unavailable`.

mod migrate;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use syncline_protocol::{Problem, ProblemCode, Timestamp};
use tokio::runtime;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StorageError;
use crate::endpoint::{Answer, Claims, Concurrent, Endpoint, Random, Request};
pub use migrate::{MIGRATIONS, Migration};

/// A request is sent so many times in all, if the database asks for it.
const ATTEMPTS: u32 = 4;
/// Waiting for a connection, of the pool or of the network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SERVE: &str = "SELECT status, body FROM syncline.serve($1, $2, $3)";

/// Where the database is, and how it is used.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgresql://…`, or `host=… user=…`. May hold a password.
    pub url: String,
    /// A file with the certificates to trust (PEM), instead of those of the web.
    pub ca_file: Option<PathBuf>,
    /// Connections, at most.
    pub connections: usize,
    /// Seconds that the database may take for one request.
    pub statement_timeout_seconds: u32,
    /// The claim in which the database hears of the allowed scopes, where no more of the token is known. It reads the one that its
    /// own `syncline.settings.scope_claim` names: this one, if it was `migrate` that made it.
    pub scope_claim: String,
    /// For tests: the database takes the time from here. It believes a superuser only.
    pub time_is_given: bool,
}

impl PostgresConfig {
    /// The database at `url`, everything else as usual.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            connections: 16,
            statement_timeout_seconds: 8,
            scope_claim: "scope".into(),
            time_is_given: false,
        }
    }
}

/// An entity type whose records are rows of an ordinary table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredTable {
    /// The entity type.
    pub entity_type: String,
    /// The table, with its schema where that is not in the search path.
    pub name: String,
    /// What is no longer as it was registered, one sentence each.
    pub problems: Vec<String>,
}

/// The endpoint that Postgres is. Answers several requests at once.
pub struct PostgresEndpoint {
    pool: Pool,
    /// Drives the connections. `None` only while it is dropped.
    runtime: Option<runtime::Runtime>,
    scope_claim: String,
    time_is_given: bool,
}

impl PostgresEndpoint {
    /// Connects, and checks that the database has exactly the migrations that this version knows; with `migrate` it first
    /// brings in those that are missing.
    ///
    /// # Errors
    /// `Refused`: a database of another version, or a configuration that cannot be used. `Unavailable`: no connection.
    pub fn open(config: &PostgresConfig, migrate: bool) -> Result<Self, StorageError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| StorageError::Failed(error.to_string()))?;
        let endpoint = Self {
            pool: pool(config)?,
            runtime: Some(runtime),
            scope_claim: config.scope_claim.clone(),
            time_is_given: config.time_is_given,
        };
        endpoint.run(async {
            let mut client = endpoint.client().await?;
            if migrate {
                migrate::bring_in(&mut client, &config.scope_claim).await?;
            }
            migrate::check(&client).await
        })?;
        Ok(endpoint)
    }

    /// Gives every scope a new epoch: the operator says that the database was restored from a backup.
    ///
    /// # Errors
    /// The database's; then no epoch has changed.
    pub fn renew_epochs(&self) -> Result<(), StorageError> {
        self.call("SELECT syncline.renew_epochs()", &[]).map(drop)
    }

    /// The same for one scope.
    ///
    /// # Errors
    /// The database's.
    pub fn renew_epoch(&self, scope: &str) -> Result<(), StorageError> {
        self.call("SELECT syncline.renew_epoch($1)", &[&scope]).map(drop)
    }

    /// Drops what nobody can ask for any more in one scope. `now` counts only where time is given.
    ///
    /// # Errors
    /// The database's.
    pub fn purge(&self, scope: &str, now: Timestamp) -> Result<(), StorageError> {
        self.run(async {
            let client = self.client().await?;
            self.set_time(&client, now).await.map_err(storage)?;
            client.query("SELECT syncline.purge($1)", &[&scope]).await.map_err(storage)
        })
        .map(drop)
    }

    /// A scope's ledger, oldest entry first, each as the JSON of the wire.
    ///
    /// # Errors
    /// The database's.
    pub fn ledger(&self, scope: &str) -> Result<Vec<String>, StorageError> {
        let rows = self.call("SELECT entry::text FROM syncline.ledger($1) AS entry", &[&scope])?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The registered tables, by entity type. Only the role that brought in the migrations may ask.
    ///
    /// # Errors
    /// The database's.
    pub fn tables(&self) -> Result<Vec<RegisteredTable>, StorageError> {
        let rows = self.call(
            "SELECT r.entity_type, r.relation::text, coalesce(array_agg(c.problem ORDER BY c.problem) FILTER (WHERE c.problem IS NOT NULL), '{}')
             FROM syncline.registered_tables r LEFT JOIN syncline.check_tables() c USING (entity_type)
             GROUP BY r.entity_type, r.relation ORDER BY r.entity_type",
            &[],
        )?;
        let table = |row: &Row| RegisteredTable { entity_type: row.get(0), name: row.get(1), problems: row.get(2) };
        Ok(rows.iter().map(table).collect())
    }

    /// Puts the operator's rules for entity types in place of those before: a JSON object, as `types` of `--config`.
    ///
    /// # Errors
    /// The database's.
    pub fn configure_types(&self, types: &str) -> Result<(), StorageError> {
        self.call("SELECT syncline.configure_types(($1::text)::jsonb)", &[&types]).map(drop)
    }

    fn call(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StorageError> {
        self.run(async { self.client().await?.query(sql, values).await.map_err(storage) })
    }

    async fn set_time(&self, client: &Object, now: Timestamp) -> Result<(), tokio_postgres::Error> {
        if self.time_is_given {
            client.execute("SELECT set_config('syncline.now', $1, false)", &[&now.millis().to_string()]).await?;
        }
        Ok(())
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is there until the drop").block_on(work)
    }

    async fn client(&self) -> Result<Object, StorageError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => storage(error),
            other => StorageError::Unavailable(other.to_string()),
        })
    }

    /// What the verified token says, as the database reads it: all of it, so that functions of the app may decide by any of it.
    fn claims(&self, claims: &Claims) -> String {
        if !claims.all.is_empty() {
            let mut all = claims.all.clone();
            all.entry("role").or_insert_with(|| json!("authenticated"));
            let text = Value::Object(all).to_string();
            // The database has no text with a NUL. Who asks is still known.
            if !text.contains("\\u0000") {
                return text;
            }
        }
        let mut document = json!({ "sub": claims.user_id, "role": "authenticated" });
        match self.scope_claim.strip_prefix('/') {
            None => document[&self.scope_claim] = json!(claims.scopes),
            Some(path) => {
                let nested = path.rsplit('/').fold(json!(claims.scopes), |inner, name| json!({ name: inner }));
                if let (Some(document), Some(nested)) = (document.as_object_mut(), nested.as_object()) {
                    document.extend(nested.clone());
                }
            }
        }
        document.to_string()
    }

    fn answer(&self, request: Request<'_>, claims: &Claims, now: Timestamp) -> Answer {
        let (path, body) = match request {
            Request::Push(body) => ("push", body),
            Request::Pull(body) => ("pull", body),
        };
        let body = match std::str::from_utf8(body) {
            Ok(body) if !body.contains('\0') => body,
            Ok(_) => return Answer::problem(not_a_body("is not JSON")),
            Err(_) => return Answer::problem(not_a_body("is not UTF-8")),
        };
        let claims = self.claims(claims);
        for attempt in 1.. {
            let error = match self.run(self.ask(path, body, &claims, now)) {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            match error {
                Ask::Again(_) if attempt < ATTEMPTS => {}
                Ask::Again(error) | Ask::Never(error) => return refuse(&error),
            }
        }
        Answer::problem(Problem::new(ProblemCode::Internal))
    }

    async fn ask(&self, path: &str, body: &str, claims: &str, now: Timestamp) -> Result<Answer, Ask> {
        let client = self.client().await.map_err(Ask::Never)?;
        self.set_time(&client, now).await?;
        let row = client.query_one(&client.prepare_cached(SERVE).await?, &[&path, &body, &claims]).await?;
        let (status, body): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(match status {
            200 => Answer { status: 200, content_type: "application/json", body, problem: None, retry_after: None },
            _ => match serde_json::from_str(&body) {
                Ok(problem) => Answer::problem(problem),
                Err(_) => Answer::problem(Problem::new(ProblemCode::Internal)),
            },
        })
    }
}

impl Concurrent for PostgresEndpoint {
    fn handle(&self, request: Request<'_>, claims: &Claims, now: Timestamp, _: &mut dyn Random) -> Answer {
        self.answer(request, claims, now)
    }

    fn maintain(&self, _: Timestamp) -> Result<(), StorageError> {
        self.call("SELECT syncline.purge_all()", &[]).map(drop)
    }
}

impl Endpoint for PostgresEndpoint {
    fn handle(&mut self, request: Request<'_>, claims: &Claims, now: Timestamp, _: &mut dyn Random) -> Answer {
        self.answer(request, claims, now)
    }
}

impl Drop for PostgresEndpoint {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(runtime) = self.runtime.take() {
            // Dropping it outright would block, which a thread that serves sockets must not.
            runtime.shutdown_background();
        }
    }
}

/// Whether the same statement may be sent again.
enum Ask {
    Again(StorageError),
    Never(StorageError),
}

impl From<tokio_postgres::Error> for Ask {
    fn from(error: tokio_postgres::Error) -> Self {
        let again = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        match error.code() {
            Some(code) if again.contains(code) => Self::Again(storage(error)),
            _ => Self::Never(storage(error)),
        }
    }
}

fn not_a_body(detail: &str) -> Problem {
    Problem::new(ProblemCode::InvalidRequest).field("$").detail(detail)
}

fn refuse(error: &StorageError) -> Answer {
    let code = match error {
        StorageError::Unavailable(_) => ProblemCode::Unavailable,
        StorageError::Refused(_) | StorageError::Failed(_) => ProblemCode::Internal,
    };
    match code {
        ProblemCode::Unavailable => log::warn!("{error}"),
        _ => log::error!("{error}"),
    }
    Answer::problem(Problem::new(code))
}

/// What an error of the database means. Its message may quote a value, so only its code and routine are kept.
fn storage(error: tokio_postgres::Error) -> StorageError {
    let Some(database) = error.as_db_error() else { return StorageError::Unavailable("no connection".into()) };
    let code = database.code().code();
    let place = format!("SQLSTATE {code} in {}", database.routine().unwrap_or("a function"));
    let transient_classes = ["08", "40", "53", "57", "58"];
    let transient_codes = [SqlState::LOCK_NOT_AVAILABLE.code(), SqlState::READ_ONLY_SQL_TRANSACTION.code()];
    if transient_classes.iter().any(|class| code.starts_with(class)) || transient_codes.contains(&code) {
        return StorageError::Unavailable(place);
    }
    match &code[..2] {
        "28" | "3D" => StorageError::Refused(database.message().to_owned()),
        _ => StorageError::Failed(place),
    }
}

fn pool(config: &PostgresConfig) -> Result<Pool, StorageError> {
    let refused = |reason: String| StorageError::Refused(reason);
    let mut postgres = tokio_postgres::Config::from_str(&config.url)
        .map_err(|_| refused("the address of the database cannot be read".into()))?;
    let options = format!(
        "{} -c statement_timeout={}s -c lock_timeout={}s",
        postgres.get_options().unwrap_or_default(),
        config.statement_timeout_seconds,
        config.statement_timeout_seconds
    );
    postgres.options(options.trim_start()).application_name("syncline").connect_timeout(CONNECT_TIMEOUT);
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(postgres, tls(config)?, manager);
    Pool::builder(manager)
        .max_size(config.connections)
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        })
        .build()
        .map_err(|error| refused(error.to_string()))
}

fn tls(config: &PostgresConfig) -> Result<MakeRustlsConnect, StorageError> {
    let mut roots = rustls::RootCertStore::empty();
    match &config.ca_file {
        None => drop(roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned())),
        Some(file) => {
            let unreadable = || StorageError::Refused(format!("{}: no certificate can be read", file.display()));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|_| unreadable())? {
                roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StorageError::Refused(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}
