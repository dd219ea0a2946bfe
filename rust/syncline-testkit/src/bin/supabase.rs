//! An empty Supabase project for tests: a private Postgres cluster with its roles, and the stand-in for its Data API.
//! Prints one line of JSON when it is ready, and ends when its standard input does.

use std::error::Error;
use std::io::Read as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, Keys, Secret, Verifier};
use syncline_testkit::postgres::{Cluster, Durability};
use syncline_testkit::postgrest::{PostgRest, ROLES, Settings};
use tokio::net::TcpListener;

const PUBLISHABLE_KEY: &str = "sb_publishable_of_the_tests";

#[derive(Parser)]
struct Args {
    /// Let Postgres itself listen on loopback, at this port: also its own word and psql's, so it comes from the environment
    #[arg(env = "PGPORT")]
    database_port: Option<u16>,
}

#[expect(clippy::disallowed_methods, reason = "a program runs in real time")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let listen: &[&str] = if args.database_port.is_some() { &["listen_addresses=127.0.0.1"] } else { &[] };
    let cluster = Cluster::start_with(Durability::None, listen);
    let name = "project";
    cluster.empty_database(name);
    cluster.sql(name, ROLES);

    let database_url =
        args.database_port.map(|port| format!("postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"));
    let port = args.database_port.map(|port| format!(" port={port}")).unwrap_or_default();
    let socket = cluster.socket().display();
    let database = format!("host={socket}{port} user=authenticator dbname={name}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(
        database,
        json!({ "socket": socket.to_string(), "database": name, "database_url": database_url }),
    ))
}

/// Serves until standard input ends.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a program has tasks, and tells on its output")]
async fn serve(database: String, mut told: Value) -> Result<(), Box<dyn Error>> {
    let secret = format!("{:032x}", rand::random::<u128>());
    let auth = AuthConfig {
        keys: Keys::Hs256 { secret: Secret::new(secret.as_str()) },
        audience: vec!["authenticated".to_owned()],
        issuer: None,
        scope_claim: "scope".to_owned(),
    };
    let api = PostgRest::new(Settings {
        database,
        schemas: vec!["public".to_owned()],
        pool: 10,
        acquisition_timeout: Duration::from_secs(10),
        verifier: Verifier::new(&auth)?,
        publishable_key: Some(PUBLISHABLE_KEY.to_owned()),
        now,
    })?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    told["url"] = json!(format!("http://{}", listener.local_addr()?));
    told["publishable_key"] = json!(PUBLISHABLE_KEY);
    told["jwt_secret"] = json!(secret);
    println!("{told}");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    api.serve(listener, async {
        // However it ends, nobody holds us any more.
        let _ = ended.await;
    })
    .await?;
    Ok(())
}
