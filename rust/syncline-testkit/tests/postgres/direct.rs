//! Direct writes to a registered table at the same time as pushes: whoever is first is seen by the other one, and nothing is
//! overwritten unseen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_server::{Claims, Concurrent as _, PostgresConfig, PostgresEndpoint, Request, SystemRandom};

const TABLE: &str = "
    CREATE TABLE public.notes (scope text NOT NULL, id text NOT NULL, title text, body text, clock jsonb, PRIMARY KEY (scope, id));
    SELECT syncline.register_table('note', 'public.notes');";

/// A database with a registered table, and its endpoint.
struct Stage {
    name: &'static str,
    endpoint: PostgresEndpoint,
    epoch: Value,
    sequence: AtomicU64,
}

impl Stage {
    fn new(name: &'static str) -> Self {
        let database = crate::database(name);
        crate::sql(name, TABLE);
        let config = PostgresConfig { statement_timeout_seconds: 30, ..PostgresConfig::new(database.url()) };
        let endpoint = PostgresEndpoint::open(&config, false).unwrap();
        let mut stage = Self { name, endpoint, epoch: Value::Null, sequence: AtomicU64::new(0) };
        stage.epoch = stage.pull()["epoch"].clone();
        stage
    }

    fn ask(&self, request: Request<'_>) -> Value {
        let claims = Claims::new("ada".into(), ["team".to_owned()].into());
        let now = "2026-05-01T12:00:00Z".parse().unwrap();
        let answer = self.endpoint.handle(request, &claims, now, &mut SystemRandom);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn pull(&self) -> Value {
        let body = json!({ "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "reader", "limit": 1000 });
        self.ask(Request::Pull(body.to_string().as_bytes()))
    }

    /// Writes one note as a device of its own, having seen `base`.
    fn push(&self, device: &str, kind: &str, id: &str, payload: Value, base: Value) -> Value {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        let operation = json!({ "id": format!("{device}-{sequence}"), "idempotency_key": format!("{device}/{sequence}"),
            "sequence": sequence, "operation": kind, "entity_type": "note", "entity_id": id, "payload": payload, "base_clock": base,
            "timestamp": "2026-05-01T12:00:00Z" });
        let body = json!({ "protocol": 1, "user_id": "ada", "scope": "team", "device_id": device, "epoch": self.epoch,
            "sent_at": "2026-05-01T12:00:00Z", "operations": [operation] });
        self.ask(Request::Push(body.to_string().as_bytes()))
    }

    /// Waits until so many sessions wait for a lock.
    #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
    fn until_somebody_waits(&self) {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
            self.name
        );
        let mut rounds = (0..2_000).map(|_| thread::sleep(Duration::from_millis(5)));
        assert!(rounds.any(|()| crate::sql("postgres", &waiting) != "0"), "nobody waits");
    }

    /// Every row is its record, nothing waits, and versions are one for each record that changed.
    fn check(&self) {
        while self.pull()["has_more"] == true {}
        let differing = "SELECT count(*) FROM (SELECT id, jsonb_strip_nulls(jsonb_build_object('title', title, 'body', body)) AS record, clock
               FROM public.notes WHERE scope = 'team') t
             FULL JOIN (SELECT entity_id AS id, payload, clock FROM syncline.entities WHERE scope = 'team' AND deleted IS NULL) e USING (id)
             WHERE t.record IS DISTINCT FROM e.payload OR t.clock IS DISTINCT FROM e.clock";
        assert_eq!(crate::sql(self.name, differing), "0", "rows and records differ");
        assert_eq!(crate::sql(self.name, "SELECT count(*) FROM syncline.captures"), "0", "something waits");
    }
}

#[test]
fn a_push_waits_for_a_direct_write_that_is_under_way_and_meets_it() {
    let stage = Stage::new("under_way");
    stage.push("phone", "create", "n", json!({ "title": "first", "body": "kept" }), json!({}));
    let writer = crate::hold("under_way", "UPDATE public.notes SET title = 'by hand' WHERE id = 'n'");
    thread::scope(|scope| {
        let push = scope
            .spawn(|| stage.push("phone", "update", "n", json!({ "title": "of the phone" }), json!({ "phone": 1 })));
        stage.until_somebody_waits();
        writer.commit();
        let answer = push.join().unwrap();
        let result = &answer["results"][0];
        assert_eq!(result["status"], "merged", "{answer}");
        assert_eq!(result["conflict"]["fields"]["title"]["theirs"], "by hand", "{answer}");
        assert_eq!(result["record"]["body"], "kept");
    });
    stage.check();
}

#[test]
fn a_direct_write_that_is_given_up_is_nobodys_conflict() {
    let stage = Stage::new("given_up");
    stage.push("phone", "create", "n", json!({ "title": "first" }), json!({}));
    let writer = crate::hold("given_up", "DELETE FROM public.notes WHERE id = 'n'");
    thread::scope(|scope| {
        let push =
            scope.spawn(|| stage.push("phone", "update", "n", json!({ "title": "second" }), json!({ "phone": 1 })));
        stage.until_somebody_waits();
        drop(writer);
        let answer = push.join().unwrap();
        assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == "applied"), "{answer}");
    });
    assert_eq!(crate::sql("given_up", "SELECT title FROM public.notes"), "second");
    stage.check();
}

#[test]
fn a_row_that_appears_meanwhile_is_met_by_the_next_push() {
    let stage = Stage::new("appears");
    let writer = crate::hold("appears", "INSERT INTO public.notes (scope, id, title) VALUES ('team', 'n', 'by hand')");
    thread::scope(|scope| {
        let push = scope.spawn(|| stage.push("phone", "create", "n", json!({ "body": "of the phone" }), json!({})));
        stage.until_somebody_waits();
        writer.commit();
        let answer = push.join().unwrap();
        let result = &answer["results"][0];
        assert_eq!((&result["status"], &result["error"]["retry_after_ms"]), (&json!("retry"), &json!(0)), "{answer}");
    });
    let answer = stage.push("phone", "create", "n", json!({ "body": "of the phone" }), json!({}));
    // A field that was never set counts as set by the create, which is the later one here.
    let result = &answer["results"][0];
    assert_eq!(
        (&result["status"], &result["conflict"]["fields"]["body"]["winner"]),
        (&json!("merged"), &json!("theirs")),
        "{answer}"
    );
    assert_eq!(crate::sql("appears", "SELECT title, body IS NULL FROM public.notes"), "by hand|t");
    stage.check();
}

#[test]
fn a_direct_write_waits_for_a_push_and_stands_on_it() {
    let stage = Stage::new("waits");
    stage.push("phone", "create", "n", json!({ "title": "first" }), json!({}));
    let body = json!({ "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "phone", "epoch": stage.epoch,
        "sent_at": "2026-05-01T12:00:00Z", "operations": [{ "id": "o", "idempotency_key": "k", "sequence": 2, "operation": "update",
        "entity_type": "note", "entity_id": "n", "payload": { "body": "of the phone" }, "base_clock": { "phone": 1 },
        "timestamp": "2026-05-01T12:00:00Z" }] });
    let claims = r#"{"sub": "ada", "scope": "team"}"#;
    let push = crate::hold("waits", &format!("SELECT status FROM syncline.serve('push', $b${body}$b$, '{claims}')"));
    thread::scope(|scope| {
        let writer = scope
            .spawn(|| crate::hold("waits", "UPDATE public.notes SET title = coalesce(body, 'unseen') WHERE id = 'n'"));
        stage.until_somebody_waits();
        push.commit();
        writer.join().unwrap().commit();
    });
    let shown = loop {
        let page = stage.pull();
        if page["changes"][0]["clock"]["server"].is_u64() {
            break page;
        }
    };
    assert_eq!(shown["changes"][0]["record"], json!({ "title": "of the phone", "body": "of the phone" }));
    stage.check();
}

const ROUNDS: u64 = 25;

/// Four devices and two sessions write the same five notes.
#[test]
fn rows_and_records_agree_after_a_race() {
    let stage = Stage::new("race");
    thread::scope(|scope| {
        for device in 0..4 {
            let stage = &stage;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (name, id) = (format!("d{device}"), format!("n{}", (round + device) % 5));
                    let known = stage.pull()["changes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .find(|change| change["entity_id"] == id.as_str())
                        .cloned();
                    let base = known.as_ref().map_or(json!({}), |change| change["clock"].clone());
                    let is_live = known.is_some_and(|change| change["deleted"] != true);
                    let kind = if !is_live {
                        "create"
                    } else if round % 7 == 6 {
                        "delete"
                    } else {
                        "update"
                    };
                    let payload =
                        if kind == "delete" { Value::Null } else { json!({ "title": format!("{name} {round}") }) };
                    stage.push(&name, kind, &id, payload, base);
                }
            });
        }
        for writer in 0..2 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let id = format!("n{}", (round * 2 + writer) % 5);
                    let statement = match round % 4 {
                        0 => format!(
                            "INSERT INTO public.notes (scope, id, body) VALUES ('team', '{id}', 'new {round}')
                                      ON CONFLICT (scope, id) DO UPDATE SET body = excluded.body"
                        ),
                        3 => format!("DELETE FROM public.notes WHERE scope = 'team' AND id = '{id}'"),
                        _ => format!(
                            "UPDATE public.notes SET body = 'by {writer} {round}' WHERE scope = 'team' AND id = '{id}'"
                        ),
                    };
                    crate::hold("race", &statement).commit();
                }
            });
        }
    });
    stage.check();
    let numbers = crate::sql(
        "race",
        "SELECT s.head >= max(e.version), count(*) = count(DISTINCT e.version), bool_or(e.clock ? 'server')
         FROM syncline.scopes s JOIN syncline.entities e USING (scope) GROUP BY s.head",
    );
    assert_eq!(numbers, "t|t|t");
}
