//! Several at once: pushes of one scope, pulls beside them, and locks that are not given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use syncline_server::{Answer, Claims, Concurrent as _, PostgresConfig, PostgresEndpoint, Request, SystemRandom};

const WRITERS: usize = 8;
const PUSHES: usize = 12;
pub(super) const OPERATIONS: usize = 5;

pub(super) fn open(url: &str) -> PostgresEndpoint {
    let config = PostgresConfig { statement_timeout_seconds: 30, ..PostgresConfig::new(url) };
    PostgresEndpoint::open(&config, false).unwrap()
}

pub(super) fn ask(endpoint: &PostgresEndpoint, path: &str, members: Value) -> Answer {
    ask_in(endpoint, "team", path, members)
}

pub(super) fn ask_in(endpoint: &PostgresEndpoint, scope: &str, path: &str, members: Value) -> Answer {
    let mut body =
        json!({"protocol": 1, "user_id": "ada", "scope": scope, "sent_at": "2026-05-01T12:00:00Z", "limit": 1000});
    members.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    let body = body.to_string();
    let request = if path == "push" { Request::Push(body.as_bytes()) } else { Request::Pull(body.as_bytes()) };
    let claims = Claims::new("ada".into(), [scope.to_owned()].into());
    endpoint.handle(request, &claims, "2026-05-01T12:00:00Z".parse().unwrap(), &mut SystemRandom)
}

pub(super) fn body(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

pub(super) fn epoch(endpoint: &PostgresEndpoint) -> Value {
    body(&ask(endpoint, "pull", json!({"device_id": "first"})))["epoch"].clone()
}

pub(super) fn push(endpoint: &PostgresEndpoint, epoch: &Value, device: &str, first: usize) -> Answer {
    let operations: Vec<_> = (first..first + OPERATIONS)
        .map(|sequence| {
            json!({"id": format!("{device}-{sequence}"), "idempotency_key": format!("{device}/{sequence}"), "sequence": sequence,
                "operation": "create", "entity_type": "pin", "entity_id": format!("{device}-{sequence}"),
                "payload": {"n": sequence}, "timestamp": "2026-05-01T12:00:00Z"})
        })
        .collect();
    ask(endpoint, "push", json!({"device_id": device, "epoch": epoch, "operations": operations}))
}

/// §6: "a reader never skips one". The reader follows cursors while eight devices write.
#[test]
fn a_reader_beside_writers_skips_nothing() {
    let endpoint = open(crate::database("together").url());
    let epoch = epoch(&endpoint);
    let is_over = AtomicBool::new(false);
    let mut versions = Vec::new();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (endpoint, epoch) = (&endpoint, &epoch);
                scope.spawn(move || {
                    for turn in 0..PUSHES {
                        body(&push(endpoint, epoch, &format!("w{writer}"), turn * OPERATIONS + 1));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut seen, mut cursor) = (Vec::new(), Value::Null);
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                let page = body(&ask(
                    &endpoint,
                    "pull",
                    json!({"device_id": "r", "epoch": epoch, "cursor": cursor, "limit": 7}),
                ));
                seen.extend(
                    page["changes"].as_array().unwrap().iter().map(|change| change["version"].as_u64().unwrap()),
                );
                cursor = page["cursor"].clone();
                if was_over && page["has_more"] == false {
                    return seen;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        versions = reader.join().unwrap();
    });
    // Nobody writes an entity twice, so each version is seen exactly once, in order.
    let all: Vec<u64> = (1..=(WRITERS * PUSHES * OPERATIONS) as u64).collect();
    assert_eq!(versions, all);
}

#[test]
fn a_lock_that_is_not_given_is_unavailable_and_leaves_nothing() {
    let database = crate::database("locked");
    let patient = open(database.url());
    let epoch = epoch(&patient);
    let config = PostgresConfig { statement_timeout_seconds: 1, ..PostgresConfig::new(database.url()) };
    let endpoint = PostgresEndpoint::open(&config, false).unwrap();
    let holder = crate::hold("locked", "SELECT FROM syncline.scopes WHERE scope = 'team' FOR UPDATE");
    let answer = push(&endpoint, &epoch, "d", 1);
    assert_eq!((answer.status, answer.retry_after), (503, Some(1)), "{}", answer.body);
    drop(holder);
    assert_eq!(body(&push(&endpoint, &epoch, "d", 1))["mark"], 1);
}

#[test]
fn a_server_that_was_killed_is_found_again() {
    use syncline_testkit::postgres::{Cluster, Durability};
    let mut cluster = Cluster::start(Durability::Full);
    let endpoint = open(cluster.database("killed").url());
    let epoch = epoch(&endpoint);
    body(&push(&endpoint, &epoch, "d", 1));
    cluster.kill();
    assert_eq!(push(&endpoint, &epoch, "d", 6).status, 503);
    cluster.resume();
    let answer = loop {
        // Connections of before are found dead, one after the other.
        let answer = push(&endpoint, &epoch, "d", 1);
        if answer.status != 503 {
            break answer;
        }
    };
    let answer = body(&answer);
    assert_eq!((&answer["mark"], &answer["results"][0]["first"]), (&json!(2), &json!("applied")));
}

/// A serialization failure leaves nothing, so the same statement is sent again; but not for ever.
#[test]
fn a_serialization_failure_is_sent_again_a_few_times() {
    let database = crate::database("again");
    let endpoint = open(database.url());
    let epoch = epoch(&endpoint);
    for (failures, status) in [(3, 200), (4, 503)] {
        // A sequence counts attempts: it is not rolled back.
        crate::sql(
            "again",
            &format!(
                "DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries;
                 CREATE OR REPLACE FUNCTION syncline.allowed_scopes() RETURNS text[]
                 LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
                 BEGIN
                   IF nextval('public.tries') <= {failures} THEN RAISE serialization_failure; END IF;
                   RETURN array['team'];
                 END $$;"
            ),
        );
        let answer = push(&endpoint, &epoch, &format!("d{failures}"), 1);
        assert_eq!(answer.status, status, "{}", answer.body);
        let tries = crate::sql("again", "SELECT last_value FROM tries");
        assert_eq!(tries, "4");
    }
    assert_eq!(crate::sql("again", "SELECT string_agg(device_id, ',') FROM syncline.devices"), "d3");
}

/// §6: "the cluster's timeline … is not the stored one": a promoted standby says so at once, although its control file has not
/// yet heard of the new timeline.
#[test]
fn a_promoted_standby_renews_the_epoch_at_once() {
    use syncline_testkit::postgres::{Cluster, Durability};
    let primary = Cluster::start(Durability::None);
    let old = open(primary.database("app").url());
    let epoch = epoch(&old);
    body(&push(&old, &epoch, "d", 1));
    let standby = primary.standby(Durability::None);
    let new = open(standby.existing("app").url());
    let waiting = push(&new, &epoch, "d", 6);
    assert_eq!((waiting.status, waiting.problem.unwrap().code.as_str()), (503, "unavailable"), "it may not write yet");
    assert_eq!(ask(&new, "pull", json!({"device_id": "r"})).status, 503);

    // What writes checkpoints stands still, so that the window stays open.
    standby.freeze("checkpointer");
    standby.promote();
    let refused = push(&new, &epoch, "d", 6).problem.expect("another history");
    assert_eq!((refused.code.as_str(), refused.mark), ("server_behind", Some(1)));
    let renewed = json!(refused.epoch);
    assert_ne!(renewed, epoch);
    assert_eq!(body(&push(&new, &renewed, "d", 6))["mark"], 2);
    let page = body(&ask(&new, "pull", json!({"device_id": "r", "epoch": renewed})));
    assert_eq!(page["changes"].as_array().unwrap().len(), 2 * OPERATIONS);
    let timelines =
        "SELECT timeline_id, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_checkpoint()";
    assert_eq!(standby.sql("app", timelines), "1|00000002", "all that came before the checkpoint");
    standby.thaw("checkpointer");
}
