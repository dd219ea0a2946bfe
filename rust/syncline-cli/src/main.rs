//! The `syncline` command: an endpoint for development, a look into a device's file, a demo on real data, and a check of any
//! endpoint from outside.

#[cfg(feature = "chaos")]
mod chaos;
mod demo;
mod failure;
mod inspect;
mod output;
mod secret;
mod serve;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{EXIT_CODES, Failure};
use output::{BAD, styled};

/// Offline-first sync: run an endpoint, look into a device's file, see a team work through a bad day, or put any
/// endpoint to the test.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the endpoint on an embedded SQLite file
    #[command(after_help = EXIT_CODES)]
    Serve(serve::ServeArgs),
    /// Make a token for an endpoint that made its own secret
    #[command(after_help = EXIT_CODES)]
    Token(serve::TokenCommandArgs),
    /// Look into a device's file: its queue, an operation, its conflicts; or at a database's registered tables. Reads only
    #[command(after_help = EXIT_CODES)]
    Inspect(inspect::InspectArgs),
    /// A team of devices works through a day on real data, over a network that misbehaves, and a checker gives the verdict
    #[command(after_help = EXIT_CODES)]
    Demo(demo::DemoArgs),
    /// Check from outside, over HTTP, whether an endpoint keeps the guarantees of the protocol; any endpoint, whoever wrote it
    #[command(after_help = EXIT_CODES)]
    Torture(torture::TortureArgs),
    /// Devices and an endpoint write, break off and are killed at random for a while; then every rule is checked. For tests
    #[cfg(feature = "chaos")]
    #[command(after_help = EXIT_CODES)]
    Chaos(chaos::ChaosArgs),
    /// The endpoint's Postgres is killed, fails over, is raced and probed, by devices and by whoever may reach it. For tests
    #[cfg(feature = "chaos")]
    #[command(after_help = EXIT_CODES)]
    ChaosPostgres(chaos::postgres::ChaosPostgresArgs),
    /// One device of the demo
    #[command(hide = true)]
    DemoDevice(demo::device::DeviceArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(error.into())),
    };
    let result = runtime.block_on(run(cli.command));
    // A thread that still reads standard input would hold the end up.
    runtime.shutdown_background();
    end(result)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Token(args) => serve::token(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Demo(args) => demo::run(args).await,
        Command::Torture(args) => torture::run(args).await,
        #[cfg(feature = "chaos")]
        Command::Chaos(args) => chaos::run(args).await,
        #[cfg(feature = "chaos")]
        Command::ChaosPostgres(args) => chaos::postgres::run(args).await,
        Command::DemoDevice(args) => demo::device::run(args).await,
    }
}

fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = format!("{} {failure}\n", styled(BAD, "syncline:"));
            // Nobody to tell is no reason for another code.
            let _ = std::io::Write::write_all(&mut anstream::stderr(), text.as_bytes());
            failure.code()
        }
    }
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
