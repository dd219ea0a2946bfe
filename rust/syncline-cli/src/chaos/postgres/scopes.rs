//! Two users, each in a scope of their own, write all the while and try to see, change or find out what is in the other's.

use std::net::SocketAddr;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use syncline_testkit::postgres::Cluster;

use super::super::stage::{configuration, locked};
use super::probes::{Names, PROBES, Probe, Prober, told};
use super::report::Outcome;
use super::{Bar, Scene, Slip};
use crate::demo::DemoError;
use crate::demo::backend::{DATABASE, Postgres};
use crate::demo::child::EndpointProcess;
use crate::demo::proxy;
use crate::output::thousands;
use crate::secret;

/// What each writes between two probes.
const OPERATIONS: u64 = 3;
const TOKEN_SECONDS: i64 = 24 * 60 * 60;
/// A breach that repeats itself is told so often.
const TOLD: usize = 10;

/// A token opens the other one's scope as well.
const LEAK: &str = "CREATE OR REPLACE FUNCTION syncline.allowed_scopes() RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$ SELECT array['north', 'south'] $$";

/// One of the two.
struct Person {
    user: &'static str,
    scope: &'static str,
    token: String,
    /// In every record of theirs, and nowhere else.
    secret: String,
    epoch: String,
    /// What is used in their scope, newest last.
    used: Mutex<Vec<Names>>,
}

/// What both found out.
#[derive(Default)]
struct Found {
    probes: u64,
    requests: u64,
    breaches: Vec<String>,
}

pub(super) async fn run(scene: &Scene<'_>) -> Result<Outcome, DemoError> {
    let postgres = Postgres::start()?;
    if scene.slip == Some(Slip::Leak) {
        postgres.cluster.sql(DATABASE, LEAK);
    }
    let configuration = postgres.configure(configuration());
    std::fs::write(scene.folder.join("types.json"), configuration.to_string())?;
    let endpoint = EndpointProcess::start(scene.folder, Some(postgres.database.url())).await?;
    let secret = secret::read(&secret::path(&scene.folder.join("endpoint.db")))?;
    let mut people = Vec::new();
    for (user, scope) in [("nora", "north"), ("sol", "south")] {
        let token = secret::token(&secret, user, scope, TOKEN_SECONDS);
        let marker = format!("secret-of-{scope}-{:016x}", rand::random::<u64>());
        let mut person = Person { user, scope, token, secret: marker, epoch: String::new(), used: Mutex::default() };
        let by = Prober { user, scope, epoch: "", fresh: format!("{scope}-first") };
        let (_, mut first) = (PROBES[1].request)(&by, &Names { scope: scope.to_owned(), ..Names::default() });
        first["epoch"] = Value::Null;
        let (_, page, _) = person.ask(endpoint.address, "/v1/pull", &first).await?;
        person.epoch = page["epoch"].as_str().unwrap_or_default().to_owned();
        people.push(person);
    }
    let bar = Bar::new(scene);
    let found = Mutex::new(Found::default());
    let [north, south] = people.as_slice() else { return Err(DemoError::Stuck("there are two".to_owned())) };
    let one = probe_all(north, south, endpoint.address, scene, &found, &bar);
    let other = probe_all(south, north, endpoint.address, scene, &found, &bar);
    tokio::try_join!(one, other)?;
    endpoint.stop().await?;
    let Found { probes, requests, mut breaches } =
        found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    breaches.truncate(TOLD);
    breaches.extend(left_alone(&postgres.cluster, north, south));
    breaches.extend(left_alone(&postgres.cluster, south, north));
    let records = [north, south].map(|person| locked(&person.used).len() as u64).iter().sum();
    let figures = vec![
        ("probes, each with a twin", probes),
        ("requests", requests),
        ("kinds of probes", PROBES.len() as u64),
        ("records written meanwhile", records),
    ];
    Ok(Outcome { figures, breaches })
}

impl Person {
    async fn ask(&self, endpoint: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value, String), DemoError> {
        let (status, said) = proxy::post(endpoint, path, &self.token, body.to_string()).await?;
        let text = String::from_utf8_lossy(&said).into_owned();
        Ok((status, serde_json::from_str(&text)?, text))
    }

    /// Writes a few records of their own, from a new device.
    async fn write(&self, endpoint: SocketAddr, turn: u64) -> Result<(), DemoError> {
        let device = format!("{}-device-{turn}", self.scope);
        let name = |kind: &str, sequence: u64| format!("{}-{kind}-{turn}-{sequence}", self.scope);
        let operation = |sequence| {
            json!({
                "id": name("o", sequence), "idempotency_key": name("k", sequence), "sequence": sequence, "operation": "create",
                "entity_type": "pin", "entity_id": name("e", sequence), "payload": { "title": self.secret },
                "timestamp": "2026-11-01T00:00:00.000Z",
            })
        };
        let operations: Vec<Value> = (1..=OPERATIONS).map(operation).collect();
        let head = json!({
            "protocol": 1, "user_id": self.user, "scope": self.scope, "device_id": device, "epoch": self.epoch, "mark": 0,
            "sent_at": "2026-11-01T00:00:00.000Z",
        });
        let mut push = head.clone();
        push["operations"] = json!(operations);
        let (status, answer, _) = self.ask(endpoint, "/v1/push", &push).await?;
        if status != 200 || answer["applied"] != OPERATIONS {
            return Err(DemoError::Child(format!("{} could not write: {status} {answer}", self.user)));
        }
        let mut pull = head;
        pull["limit"] = json!(1);
        let (_, page, _) = self.ask(endpoint, "/v1/pull", &pull).await?;
        let cursor = page["cursor"].as_str().unwrap_or_default().to_owned();
        let names = |sequence| Names {
            scope: self.scope.to_owned(),
            user: self.user.to_owned(),
            device: device.clone(),
            key: name("k", sequence),
            operation: name("o", sequence),
            entity: name("e", sequence),
            cursor: cursor.clone(),
            epoch: self.epoch.clone(),
        };
        locked(&self.used).extend((1..=OPERATIONS).map(names));
        Ok(())
    }
}

/// `by` writes, and tries everything with what is used in the scope `of`.
async fn probe_all(
    by: &Person,
    of: &Person,
    endpoint: SocketAddr,
    scene: &Scene<'_>,
    found: &Mutex<Found>,
    bar: &Bar,
) -> Result<(), DemoError> {
    let mut random = StdRng::seed_from_u64(scene.seed ^ by.scope.len() as u64 ^ u64::from(by.scope.as_bytes()[0]));
    let mut tried = 0;
    for turn in 0.. {
        // The other one may have made the last probe: then they write no more, and nothing new would come.
        if locked(found).probes >= scene.sizes.probes {
            break;
        }
        by.write(endpoint, turn).await?;
        // What a probe has used is known here from then on, so each name is tried once.
        let Some(names) = locked(&of.used).get(tried).cloned() else {
            tokio::task::yield_now().await;
            continue;
        };
        tried += 1;
        let probe = &PROBES[random.random_range(0..PROBES.len())];
        probe_with(by, of, endpoint, probe, &names, found).await?;
        let probes = locked(found).probes;
        bar.tell(format!("{} of {} probes", thousands(probes), thousands(scene.sizes.probes)));
    }
    Ok(())
}

/// Sends a request with the names of the other scope, and its twin with names of nobody: the answers are alike, and hold nothing of
/// the other's.
async fn probe_with(
    by: &Person,
    of: &Person,
    endpoint: SocketAddr,
    probe: &Probe,
    names: &Names,
    found: &Mutex<Found>,
) -> Result<(), DemoError> {
    let number = locked(found).probes;
    let nobodys = |name: &str| name.replace(of.scope, "nowhere").replace(of.user, "nobody");
    let made_up = Names {
        scope: "nowhere".to_owned(),
        user: "nobody".to_owned(),
        device: nobodys(&names.device),
        key: nobodys(&names.key),
        operation: nobodys(&names.operation),
        entity: nobodys(&names.entity),
        cursor: "made-up".to_owned(),
        epoch: "made-up".to_owned(),
    };
    let mut answers = Vec::new();
    for (which, names) in [("used", names), ("nobodys", &made_up)] {
        let fresh = format!("{}-probe-{number}-{which}", by.user);
        let prober = Prober { user: by.user, scope: by.scope, epoch: &by.epoch, fresh };
        let (path, body) = (probe.request)(&prober, names);
        let (status, answer, text) = by.ask(endpoint, path, &body).await?;
        let mut found = locked(found);
        found.requests += 1;
        if text.contains(&of.secret) || text.contains(&of.epoch) {
            found.breaches.push(format!("scopes: {} of {} gave something away: {text}", probe.name, of.scope));
        }
        answers.push(told(status, &answer, &prober, names));
    }
    let mut found = locked(found);
    found.probes += 1;
    if answers[0] != answers[1] {
        found.breaches.push(format!(
            "scopes: {} of {} is answered {}, and with made-up names {}",
            probe.name, of.scope, answers[0], answers[1]
        ));
    }
    Ok(())
}

/// Nothing of the other one is in this scope, and everything of its owner is as it was written.
fn left_alone(cluster: &Cluster, of: &Person, other: &Person) -> Vec<String> {
    let count = |what: &str| cluster.sql(DATABASE, &format!("SELECT count(*) FROM syncline.{what}")).parse::<u64>();
    let (scope, user, secret) = (of.scope, of.user, &of.secret);
    let written = locked(&of.used).len() as u64;
    let whole = format!(
        "entities WHERE scope = '{scope}' AND payload = '{{\"title\": \"{secret}\"}}' AND deleted IS NULL
           AND (SELECT count(*) FROM jsonb_object_keys(clock)) = 1"
    );
    let checks = [
        (whole, written, "records as they were written"),
        (format!("devices WHERE scope = '{scope}' AND user_id <> '{user}'"), 0, "devices of others"),
        (
            format!("entities WHERE scope = '{scope}' AND payload ->> 'probe' = '{}'", other.user),
            0,
            "records of the other one",
        ),
    ];
    checks
        .into_iter()
        .filter_map(|(what, expected, sentence)| match count(&what) {
            Ok(found) if found == expected => None,
            found => Some(format!("scopes: {scope} has {found:?} {sentence}, not {expected}")),
        })
        .collect()
}
