//! Runs the vectors of `contract/` against an endpoint on Supabase, over HTTP. Ends with a sum, and fails if a vector does.

use std::error::Error;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::json;
use syncline_protocol::Timestamp;
use syncline_testkit::contract::{Host as _, HttpHost, Outcome, Place, PostgresHost, folder, load, run};
use syncline_testkit::postgres::Database;

#[derive(Parser)]
struct Args {
    /// The project's URL; with `--function`, what `/v1/push` is below
    url: String,
    /// Its publishable key
    #[arg(long, env = "SYNCLINE_SUPABASE_KEY", required_unless_present = "function")]
    key: Option<String>,
    /// Ask the Edge Function
    #[arg(long)]
    function: bool,
    /// Its JWT secret: tokens of several people are made with it
    #[arg(long, env = "SYNCLINE_JWT_SECRET", hide_env_values = true)]
    secret: String,
    /// Its database, for what an operator does
    #[arg(long, env = "SYNCLINE_DATABASE_URL", hide_env_values = true)]
    database: String,
}

#[expect(clippy::disallowed_methods, reason = "a program runs in real time")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[expect(clippy::print_stdout, reason = "a program tells on its output")]
fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let place = match args.key {
        Some(publishable_key) if !args.function => Place::Rpc { url: args.url, publishable_key },
        _ => Place::Edge { url: args.url },
    };
    let operator = PostgresHost::new(&Database::at(args.database))?;
    let mut host = HttpHost::new(place, &args.secret, operator, now)?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    run(&mut host, &load(&folder())?, |vector, outcome| match outcome {
        Outcome::Failed(why) => {
            failed += 1;
            println!("FAIL {}\n    {why}", vector.title());
        }
        Outcome::Skipped(_) => skipped += 1,
        Outcome::Passed => passed += 1,
    });
    // The last vector's rules for entity types are nobody else's.
    host.reset(&json!({}))?;
    println!("{skipped} vectors need what this host lacks");
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
