//! `syncline torture`: the guarantees of spec §4 to §6 and §9, checked from outside against any endpoint that speaks spec §6
//! over HTTP. It shares no code with the device core, because it must be able to send what no device would; every request is
//! raw JSON, and what is expected is derived from the specification, not from an implementation.
//!
//! A run uses fresh device ids, entity ids and keys, dates its writes an hour back, and deletes at its end what it made.

mod bodies;
mod client;
mod conflicts;
mod delivery;
mod device;
mod feed;
mod history;
mod order;
mod outcome;
mod report;
mod scopes;
mod world;

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use futures_util::future::LocalBoxFuture;
use rand::RngExt;
use syncline_server::auth::Secret;

use crate::failure::Failure;
use crate::{output, secret};
use client::{Client, Credential};
use outcome::{Outcome, Trouble};
use report::{Finding, Progress, Report};
use world::{People, World};

/// How long a token that the run makes itself is good.
const TOKEN_SECONDS: i64 = 60 * 60;
/// Rounds of what depends on luck.
const ROUNDS: usize = 6;
const SLOW_ROUNDS: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct TortureArgs {
    /// The endpoint: what comes before `/v1/push`. `https://…`, or `http://` to loopback
    url: String,
    /// The token of the user who asks
    #[arg(long, env = "SYNCLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The user the token is for
    #[arg(long, default_value = "dev")]
    user: String,
    /// The scope it opens: best one that nobody else works in
    #[arg(long, default_value = "team-1")]
    scope: String,
    /// A token of somebody else in another scope, for the probes across scopes
    #[arg(long, env = "SYNCLINE_OTHER_TOKEN", hide_env_values = true, requires_all = ["other_user", "other_scope"])]
    other_token: Option<String>,
    /// The user that the other token is for
    #[arg(long, value_name = "USER")]
    other_user: Option<String>,
    /// The scope that the other token opens
    #[arg(long, value_name = "SCOPE")]
    other_scope: Option<String>,
    /// The endpoint is the functions of the Supabase project at URL, asked by its Data API with this publishable key
    #[arg(long, env = "SYNCLINE_SUPABASE_KEY", hide_env_values = true, value_name = "KEY", conflicts_with = "data")]
    supabase_key: Option<String>,
    /// The SQLite file of an endpoint that made its own secret (as for `syncline token`): all tokens are made with it,
    /// whatever else is given
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The entity type to use; it must take any record, under the default rules
    #[arg(long, default_value = "pin", value_name = "NAME")]
    entity_type: String,
    /// Draws the names of the run; without it, a fresh one. An endpoint takes each seed once
    #[arg(long)]
    seed: Option<u64>,
    /// More rounds of what depends on luck
    #[arg(long)]
    slow: bool,
    /// Leave out the one check that renews the scope's epoch, after which every device of the scope pulls from the start
    #[arg(long)]
    keep_epoch: bool,
    /// Send the token over http:// to other hosts too
    #[arg(long)]
    allow_cleartext: bool,
    /// Print the report as JSON, and no progress
    #[arg(long)]
    json: bool,
}

/// A promise of the specification, and how it is checked.
struct Guarantee {
    /// A word for programs; it stays.
    id: &'static str,
    sentence: &'static str,
    /// Where the specification says so.
    spec: &'static str,
    check: for<'w> fn(&'w World) -> LocalBoxFuture<'w, Outcome>,
}

/// All of them, in the order in which they are checked: what renews the epoch, and what judges all answers, at the end.
fn guarantees() -> impl Iterator<Item = &'static Guarantee> {
    let families = [
        delivery::GUARANTEES,
        order::GUARANTEES,
        conflicts::GUARANTEES,
        scopes::GUARANTEES,
        history::GUARANTEES,
        feed::GUARANTEES,
        bodies::GUARANTEES,
        std::slice::from_ref(&history::RENEWING),
        bodies::OVER_ALL,
    ];
    families.into_iter().flatten()
}

/// Runs `syncline torture`.
///
/// # Errors
/// A guarantee is broken, the run cannot begin, or Ctrl-C.
pub(crate) async fn run(args: TortureArgs) -> Result<(), Failure> {
    let people = people(&args)?;
    let client =
        Client::new(&args.url, args.allow_cleartext, args.supabase_key.as_deref()).map_err(Failure::CannotRun)?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random::<u32>().into());
    let rounds = if args.slow { SLOW_ROUNDS } else { ROUNDS };
    let mut world = World::new(client, people, args.entity_type.clone(), seed, rounds);
    world.keep_epoch = args.keep_epoch;
    let report = tokio::select! {
        report = torture(&world, &args, seed) => report?,
        () = crate::interrupted() => return Err(Failure::Interrupted),
    };
    if args.json {
        output::print_json(&report.json())?;
    } else {
        output::print(&report.text())?;
    }
    if report.holds() { Ok(()) } else { Err(Failure::Tortured) }
}

async fn torture(world: &World, args: &TortureArgs, seed: u64) -> Result<Report, Failure> {
    let watch = report::Stopwatch::start();
    world.begin().await.map_err(|trouble| Failure::CannotRun(reason(trouble)))?;
    let progress = Progress::new(guarantees().count(), !args.json);
    let mut findings = Vec::new();
    for guarantee in guarantees() {
        progress.at(guarantee.id);
        let before = watch.seconds();
        findings.push(Finding::of(guarantee, (guarantee.check)(world).await));
        log::debug!("{}: {:.3} s", guarantee.id, watch.seconds() - before);
        progress.done();
    }
    let left = match world.clean_up().await {
        Ok((deleted, 0)) => format!("{deleted} records of the run were deleted; their tombstones and verdicts stay"),
        Ok((deleted, refused)) => format!("{refused} of {deleted} records of the run could not be deleted"),
        Err(_) => "the records of the run could not be deleted".to_owned(),
    };
    let requests = world.client.requests.load(Ordering::Relaxed);
    Ok(Report { endpoint: args.url.clone(), seed, seconds: watch.seconds(), requests, findings, left })
}

/// Why the run cannot begin, with what the endpoint said.
fn reason(trouble: Trouble) -> String {
    match trouble {
        Trouble::Skipped(why) => why,
        Trouble::Broken(evidence) => match evidence.answer {
            Some(answer) => format!("{} (it answered {answer})", evidence.what),
            None => evidence.what,
        },
    }
}

fn people(args: &TortureArgs) -> Result<People, Failure> {
    if let Some(data) = &args.data {
        let file = secret::path(data);
        let secret = secret::read(&file).map_err(|error| Failure::file(&file, &error))?;
        return Ok(made(args, &secret));
    }
    let Some(token) = args.token.clone() else {
        return Err(Failure::CannotRun("there is no token (--token, SYNCLINE_TOKEN or --data)".to_owned()));
    };
    let given = [Some(&token), args.other_token.as_ref()];
    if given.into_iter().flatten().any(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Failure::CannotRun("a token has characters that no header takes".to_owned()));
    }
    let user = Credential { token, user: args.user.clone(), scope: args.scope.clone() };
    let other = match (&args.other_token, &args.other_user, &args.other_scope) {
        (Some(token), Some(user), Some(scope)) => {
            Some(Credential { token: token.clone(), user: user.clone(), scope: scope.clone() })
        }
        _ => None,
    };
    let shares = |other: &Credential| other.scope == user.scope;
    let mate = other.clone().filter(|other| shares(other) && other.user != user.user);
    let other = other.filter(|other| !shares(other));
    Ok(People { user, other, mate })
}

/// Everybody, by tokens made with the endpoint's own secret.
fn made(args: &TortureArgs, secret: &Secret) -> People {
    let person = |user: &str, scope: &str| Credential {
        token: secret::token(secret, user, scope, TOKEN_SECONDS),
        user: user.to_owned(),
        scope: scope.to_owned(),
    };
    let other_user = args.other_user.clone().unwrap_or_else(|| format!("{}-other", args.user));
    let other_scope = args.other_scope.clone().unwrap_or_else(|| format!("{}-other", args.scope));
    People {
        user: person(&args.user, &args.scope),
        other: Some(person(&other_user, &other_scope)),
        mate: Some(person(&other_user, &args.scope)),
    }
}
