//! `syncline serve`: the endpoint on an embedded SQLite file or on Postgres, and `syncline token`, which makes tokens for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::json;
use syncline_protocol::PROTOCOL;
use syncline_server::auth::{AuthConfig, JwksLocation, Keys, Verifier};
use syncline_server::endpoint::types::TypeConfig;
use syncline_server::{
    Config, LimitsConfig, PostgresConfig, ServeError, Server, StoreConfig, SystemClock, SystemRandom, open_endpoint,
    open_postgres,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::output::{self, QUIET, STRONG, styled};
use crate::secret;

const DAY_SECONDS: i64 = 24 * 60 * 60;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:7077", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The SQLite file; made if it does not exist
    #[arg(long, default_value = "syncline.db", value_name = "FILE")]
    data: PathBuf,
    /// Say that the file was restored from a backup: every scope gets a new epoch, and devices send again what they keep.
    /// Needed once after each restore; without it, a late duplicate of an old request may hide what was lost
    #[arg(long)]
    restored: bool,
    /// JSON file with entity types, limits and token verification (members `types`, `limits`, `auth`)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the OpenAPI document and end
    #[arg(long)]
    openapi: bool,
    /// Print one line of JSON when ready, instead of text
    #[arg(long)]
    json: bool,
    /// Stop when standard input closes: the endpoint then ends with the program that started it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    tokens: TokenArgs,
}

/// The endpoint on Postgres instead of a SQLite file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Postgres (docs/operating.md)")]
struct PostgresArgs {
    /// Serve this database: `postgresql://…`, or `host=… user=…`. May hold a password: better given by the environment
    #[arg(long, value_name = "URL", env = "SYNCLINE_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// Bring in Syncline's migrations first, where they are missing
    #[arg(long, requires = "postgres")]
    migrate: bool,
    /// File with the certificates to trust for TLS (PEM), instead of those of the web
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_ca: Option<PathBuf>,
    /// Connections to the database, at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=500))]
    postgres_connections: u16,
}

/// How tokens are verified. Without any of these, the endpoint makes a secret of its own and prints a token.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens (without any of these: a secret of its own, for development)")]
struct TokenArgs {
    /// File with the HS256 secret, 32 bytes or more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jwks_url", "jwks_file"])]
    jwt_secret_file: Option<PathBuf>,
    /// Where the public keys are: `https://…`, or `http://` to loopback
    #[arg(long, value_name = "URL", requires = "jwt_algorithm", conflicts_with = "jwks_file")]
    jwks_url: Option<String>,
    /// File with the public keys
    #[arg(long, value_name = "FILE", requires = "jwt_algorithm")]
    jwks_file: Option<PathBuf>,
    /// The algorithm of the tokens; the one a token names is never believed
    #[arg(long, value_enum)]
    jwt_algorithm: Option<Algorithm>,
    /// What a token must name as `aud`; may be given more than once
    #[arg(long, value_name = "TEXT", default_value = secret::AUDIENCE)]
    jwt_audience: Vec<String>,
    /// What a token must name as `iss`
    #[arg(long, value_name = "TEXT")]
    jwt_issuer: Option<String>,
    /// The claim with the scope, or the array of allowed scopes; a JSON pointer reaches into nested claims
    #[arg(long, value_name = "CLAIM", default_value = "scope")]
    jwt_scope_claim: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    #[value(name = "ES256")]
    Es256,
    #[value(name = "RS256")]
    Rs256,
}

/// What `--config` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    types: BTreeMap<String, TypeConfig>,
    limits: LimitsConfig,
    auth: Option<AuthConfig>,
}

/// Runs `syncline serve` until it is told to stop.
///
/// # Errors
/// A file, the address, or the configuration.
pub(crate) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    if args.openapi {
        return Ok(output::print(&format!("{}\n", syncline_server::openapi()))?);
    }
    let file = args.config.as_deref().map_or_else(|| Ok(ConfigFile::default()), read_config)?;
    let (auth, token) = auth(&args, file.auth)?;
    let address = |error: &std::io::Error| Failure::Address { address: args.listen.to_string(), reason: reason(error) };
    let listener = TcpListener::bind(args.listen).await.map_err(|error| address(&error))?;
    let listening = listener.local_addr().map_err(|error| address(&error))?;
    let server = match &args.postgres.postgres {
        Some(url) => open_database(&args, url, auth, (file.types, file.limits)).await?,
        None => {
            let store = StoreConfig { path: args.data.clone(), vfs: None, restored: args.restored };
            let config = Config { store, auth, types: file.types, limits: file.limits };
            open(config).map_err(|error| serve_failure(&args.data, error))?
        }
    };
    announce(&args, listening, token.as_deref())?;
    let until_stdin_closes = args.until_stdin_closes;
    let serving = server.serve(listener, async move { stop_requested(until_stdin_closes).await });
    serving.await.map_err(|error| serve_failure(&args.data, error))
}

fn open(config: Config) -> Result<Server, ServeError> {
    let (clock, mut random) = (SystemClock, SystemRandom);
    let endpoint = open_endpoint(&config, &clock, &mut random)?;
    let verifier = Verifier::new(&config.auth)?;
    Server::new(Box::new(endpoint), verifier, config.limits, Box::new(clock), Box::new(random))
}

async fn open_database(
    args: &ServeArgs,
    url: &str,
    auth: AuthConfig,
    (types, limits): (BTreeMap<String, TypeConfig>, LimitsConfig),
) -> Result<Server, Failure> {
    if !types.is_empty() {
        let reason = "with --postgres, entity types are the database's: call syncline.configure_types() there";
        return Err(Failure::CannotRun(reason.to_owned()));
    }
    let config = PostgresConfig {
        ca_file: args.postgres.postgres_ca.clone(),
        connections: args.postgres.postgres_connections.into(),
        scope_claim: auth.scope_claim.clone(),
        ..PostgresConfig::new(url)
    };
    let failed = |error: ServeError| Failure::Failed(error.to_string());
    let endpoint = open_postgres(config, args.postgres.migrate, args.restored).await.map_err(failed)?;
    let verifier = Verifier::new(&auth).map_err(|error| failed(error.into()))?;
    Server::concurrent(Box::new(endpoint), verifier, limits, Box::new(SystemClock), Box::new(SystemRandom))
        .map_err(failed)
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn read_config(file: &Path) -> Result<ConfigFile, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
    // The parser's own message may quote the file, which may hold a secret.
    serde_json::from_str(&text).map_err(|error| {
        Failure::Failed(format!("{}: not valid at line {} column {}", file.display(), error.line(), error.column()))
    })
}

/// The verification as asked for, and a ready token if the secret is the endpoint's own.
fn auth(args: &ServeArgs, configured: Option<AuthConfig>) -> Result<(AuthConfig, Option<String>), Failure> {
    let tokens = &args.tokens;
    let with = |keys| AuthConfig {
        keys,
        audience: tokens.jwt_audience.clone(),
        issuer: tokens.jwt_issuer.clone(),
        scope_claim: tokens.jwt_scope_claim.clone(),
    };
    let jwks = match (&tokens.jwks_url, &tokens.jwks_file) {
        (Some(url), _) => Some(JwksLocation::Url(url.clone())),
        (None, Some(file)) => Some(JwksLocation::File(file.clone())),
        (None, None) => None,
    };
    if let Some(jwks) = jwks {
        let keys = match tokens.jwt_algorithm {
            Some(Algorithm::Rs256) => Keys::Rs256 { jwks },
            _ => Keys::Es256 { jwks },
        };
        return Ok((with(keys), None));
    }
    if let Some(file) = &tokens.jwt_secret_file {
        let secret = secret::read(file).map_err(|error| Failure::file(file, &error))?;
        return Ok((with(Keys::Hs256 { secret }), None));
    }
    if let Some(configured) = configured {
        return Ok((configured, None));
    }
    let file = secret::path(&args.data);
    let secret = secret::read_or_make(&file).map_err(|error| Failure::file(&file, &error))?;
    let token = secret::token(&secret, "dev", "team-1", DAY_SECONDS);
    Ok((with(Keys::Hs256 { secret }), Some(token)))
}

fn announce(args: &ServeArgs, listening: SocketAddr, token: Option<&str>) -> Result<(), Failure> {
    let data = args.data.display();
    let store = if args.postgres.postgres.is_some() { "Postgres".to_owned() } else { format!("data {data}") };
    if args.json {
        let line = json!({ "listening": listening, "data": args.data, "protocol": PROTOCOL, "token": token });
        return Ok(output::print(&format!("{line}\n"))?);
    }
    let mut text = format!(
        "  {} on {}   {store}   protocol {PROTOCOL}\n",
        styled(STRONG, "Syncline endpoint"),
        styled(STRONG, format_args!("http://{listening}"))
    );
    if let Some(token) = token {
        text += &format!("  Development token for user dev, scope team-1 (24 h):  {token}\n");
        text += &styled(QUIET, format_args!("  More tokens:  syncline token --data {data} --user NAME --scope NAME\n"));
    }
    text += &styled(QUIET, format_args!("  Try:  curl http://{listening}/health      stop with Ctrl-C\n"));
    Ok(output::print(&text)?)
}

fn serve_failure(data: &Path, error: ServeError) -> Failure {
    match error {
        ServeError::Storage(error) => Failure::NotOurs { path: data.to_owned(), reason: error.to_string() },
        other => Failure::Failed(other.to_string()),
    }
}

/// Resolves on Ctrl-C, on SIGTERM, and, if asked, when standard input closes.
async fn stop_requested(until_stdin_closes: bool) {
    let closed = async {
        if until_stdin_closes {
            // Whatever the reason, nobody is there any more.
            let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = crate::interrupted() => {}
        () = closed => {}
    }
}

#[derive(Debug, Args)]
pub(crate) struct TokenCommandArgs {
    /// The endpoint's SQLite file; its secret lies beside it
    #[arg(long, default_value = "syncline.db", value_name = "FILE")]
    data: PathBuf,
    /// The user the token is for
    #[arg(long, default_value = "dev")]
    user: String,
    /// The scope it opens
    #[arg(long, default_value = "team-1")]
    scope: String,
    /// How long it is good, in hours
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    hours: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `syncline token`.
///
/// # Errors
/// There is no secret: the endpoint was never started with this data.
pub(crate) fn token(args: TokenCommandArgs) -> Result<(), Failure> {
    let file = secret::path(&args.data);
    let secret = secret::read(&file).map_err(|error| Failure::file(&file, &error))?;
    let token = secret::token(&secret, &args.user, &args.scope, i64::from(args.hours) * 3_600);
    if args.json {
        let (user, scope, hours) = (args.user, args.scope, args.hours);
        return Ok(output::print_json(&json!({ "token": token, "user": user, "scope": scope, "hours": hours }))?);
    }
    Ok(output::print(&format!("{token}\n"))?)
}
