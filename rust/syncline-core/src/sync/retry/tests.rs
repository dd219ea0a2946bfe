use proptest::prelude::*;
use serde_json::{Value, json};
use syncline_protocol::Problem;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

struct Draw(fn(u64, u64) -> u64);

impl Random for Draw {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
    fn between(&self, low: u64, high: u64) -> u64 {
        (self.0)(low, high)
    }
}

fn response(protocol: Option<&str>, status: u16, body: &str) -> Outcome {
    answered(Dialect::Syncline, protocol, status, body)
}

fn answered(dialect: Dialect, protocol: Option<&str>, status: u16, body: &str) -> Outcome {
    let protocol = protocol.map(ToOwned::to_owned);
    let body = body.as_bytes().to_vec();
    Outcome::Answered(Response { status, protocol, retry_after: Some("7".into()), body, dialect })
}

fn postgrest(status: u16, code: &str, message: &str) -> String {
    let body = json!({"code": code, "details": null, "hint": null, "message": message}).to_string();
    word(disposition(Route::Push, answered(Dialect::Supabase, None, status, &body), NOW))
}

fn ours(status: u16, body: Value) -> Outcome {
    response(Some("1"), status, &body.to_string())
}

/// The disposition in a word or two, so that a table can be read.
fn word(disposition: Disposition) -> String {
    let wait = |retry_after_ms: Option<u64>| retry_after_ms.map_or(String::new(), |ms| format!(" after {ms}"));
    match disposition {
        Disposition::Pushed(_) => "pushed".into(),
        Disposition::Pulled(_) => "pulled".into(),
        Disposition::Silent(s) => {
            format!("silent {}{}{}", s.reason, if s.went_out { "" } else { " (never left)" }, wait(s.retry_after_ms))
        }
        Disposition::Busy { reason, retry_after_ms } => format!("busy {reason}{}", wait(retry_after_ms)),
        Disposition::TooLarge { ours, limits } => {
            let limits =
                limits.map_or(String::new(), |limits| format!(" {}/{}", limits.max_operations, limits.max_bytes));
            format!("too large {}{limits}", if ours { "ours" } else { "theirs" })
        }
        Disposition::Refused { reason, stale } => {
            format!("refused {reason}{}", if stale { " (stale)" } else { "" })
        }
        Disposition::Blame(b) => format!("blame {} {}", b.reason, if b.attempt { "attempt" } else { "final" }),
        Disposition::UnsupportedProtocol { supported } => format!("unsupported {supported:?}"),
        Disposition::Forked => "forked".into(),
        Disposition::Behind { epoch, mark } => format!("behind {epoch} {mark}"),
        Disposition::Abandoned => "abandoned".into(),
    }
}

fn push_answer() -> Value {
    json!({"version": 1, "epoch": "e", "mark": 1, "server_time": "2027-01-01T00:00:00Z"})
}

#[test]
fn every_outcome_is_judged_in_one_place() {
    let page = json!({"changes": [], "cursor": "c", "epoch": "e"});
    let table: Vec<(Outcome, &str)> = vec![
        // Our endpoint's answers to a push.
        (ours(200, push_answer()), "pushed"),
        (ours(200, page.clone()), "silent invalid_answer after 7000"),
        (response(Some("1"), 200, "{\"version\":1,"), "silent invalid_answer after 7000"),
        (ours(204, json!({})), "silent invalid_answer after 7000"),
        (ours(301, json!({})), "silent invalid_answer after 7000"),
        // Nobody's, or somebody else's.
        (response(None, 200, "<html>sign in</html>"), "silent not_our_endpoint after 7000"),
        (response(None, 200, &push_answer().to_string()), "silent not_our_endpoint after 7000"),
        (response(None, 302, ""), "silent not_our_endpoint after 7000"),
        (response(None, 401, ""), "silent not_our_endpoint after 7000"),
        (response(None, 403, ""), "silent not_our_endpoint after 7000"),
        (response(None, 404, ""), "silent not_our_endpoint after 7000"),
        (response(None, 503, ""), "silent not_our_endpoint after 7000"),
        (response(None, 520, ""), "silent not_our_endpoint after 7000"),
        (response(Some("x"), 200, ""), "silent not_our_endpoint after 7000"),
        (response(None, 413, ""), "too large theirs"),
        (Outcome::NoAnswer(TransportError::Unreachable(String::new())), "silent unreachable (never left)"),
        (Outcome::NoAnswer(TransportError::Certificate(String::new())), "silent certificate (never left)"),
        (Outcome::NoAnswer(TransportError::Broken(String::new())), "silent broken"),
        (Outcome::NoAnswer(TransportError::Timeout), "silent timeout"),
        (Outcome::NoAnswer(TransportError::TooLarge), "silent answer_too_large"),
        (Outcome::NoCredential("no_credential".into()), "refused no_credential"),
        (Outcome::Abandoned, "abandoned"),
        // Without a known code, the status decides.
        (ours(429, json!({})), "busy http_429 after 7000"),
        (ours(503, json!({"code": "55P03"})), "busy http_503 after 7000"),
        (ours(401, json!({"code": "expired_session"})), "refused expired_session (stale)"),
        (ours(403, json!("no object")), "refused http_403"),
        (ours(413, json!({})), "too large ours"),
        (ours(400, json!({})), "blame http_400 final"),
        (ours(409, json!({"code": "out_of_tea"})), "blame out_of_tea final"),
        (ours(500, json!({})), "blame http_500 attempt"),
        (response(Some("1"), 502, "<html>"), "blame http_502 attempt"),
        // A code says more than the status.
        (ours(500, json!({"code": "too_deep"})), "blame too_deep final"),
        (ours(500, json!({"code": "rate_limited"})), "busy rate_limited after 7000"),
        (ours(200, json!({"code": "unavailable"})), "silent invalid_answer after 7000"),
        (ours(400, json!({"code": "unauthorized"})), "refused unauthorized (stale)"),
        (
            ours(413, json!({"code": "body_too_large", "limits": {"max_operations": 5, "max_bytes": 9}})),
            "too large ours 5/9",
        ),
        // Procedures.
        (ours(409, json!({"code": "device_forked"})), "forked"),
        (ours(409, json!({"code": "server_behind", "epoch": "e2", "mark": 3})), "behind e2 3"),
        (ours(409, json!({"code": "server_behind"})), "silent invalid_answer after 7000"),
        (
            ours(409, json!({"code": "server_behind", "epoch": "e2", "mark": MAX_COUNTER + 1})),
            "silent invalid_answer after 7000",
        ),
        (ours(400, json!({"code": "unsupported_protocol", "supported": [2]})), "unsupported [2]"),
        (response(Some("2"), 200, "{}"), "unsupported [2]"),
        (response(Some("2"), 400, r#"{"supported":[2,3]}"#), "unsupported [2, 3]"),
    ];
    for (outcome, expected) in table {
        let shown = format!("{outcome:?}");
        assert_eq!(word(disposition(Route::Push, outcome, NOW)), expected, "{shown}");
    }
    assert_eq!(word(disposition(Route::Pull, ours(200, page), NOW)), "pulled");
    assert_eq!(word(disposition(Route::Pull, ours(200, push_answer()), NOW)), "silent invalid_answer after 7000");
}

#[test]
fn every_code_of_the_protocol_has_its_disposition() {
    for code in ProblemCode::ALL {
        let mut problem = Problem::new(code);
        (problem.epoch, problem.mark) = (Some("e2".into()), Some(3));
        let judged = word(disposition(Route::Push, ours(code.status(), serde_json::to_value(problem).unwrap()), NOW));
        let expected = match code.class() {
            ProblemClass::Permanent => "blame",
            ProblemClass::Transient => "busy",
            ProblemClass::Auth => "refused",
            ProblemClass::TooLarge => "too large ours",
            ProblemClass::Procedure => "",
        };
        assert!(judged.starts_with(expected), "{code:?}: {judged}");
        assert_eq!(judged.ends_with("attempt"), code == ProblemCode::Internal, "{code:?}: {judged}");
    }
}

#[test]
fn every_code_of_postgrest_has_its_disposition() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../syncline-protocol/fixtures/postgrest-errors.json");
    let table: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() > 50);
    for row in rows {
        let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
        assert_eq!(postgrest(status, row["code"].as_str().unwrap(), "no"), row["disposition"], "{row}");
    }
}

#[test]
fn only_whole_error_objects_of_the_supabase_dialect_are_postgrests_word() {
    let supabase = |protocol, status, body: &str| {
        word(disposition(Route::Push, answered(Dialect::Supabase, protocol, status, body), NOW))
    };
    let whole = r#"{"code":"22P02","details":null,"hint":null,"message":"no"}"#;
    let not_ours = "silent not_our_endpoint after 7000";
    assert_eq!(supabase(None, 400, whole), "blame 22p02 final");
    // The other dialect knows no such word, and a 200 is none.
    assert_eq!(word(disposition(Route::Push, response(None, 400, whole), NOW)), not_ours);
    assert_eq!(supabase(None, 200, whole), not_ours);
    for stranger in [
        "<html>",
        "[]",
        r#"{"code":"22P02","message":"no"}"#,
        r#"{"code":401,"details":null,"hint":null,"message":"Invalid JWT"}"#,
        r#"{"message":"Invalid API key","hint":"Double check your API key."}"#,
        r#"{"code":"22P02","details":null,"hint":null}"#,
    ] {
        assert_eq!(supabase(None, 400, stranger), not_ours, "{stranger}");
    }
    assert_eq!(supabase(None, 413, "<html>"), "too large theirs");
    // What the functions answer themselves is judged as anywhere.
    assert_eq!(supabase(Some("1"), 409, r#"{"code":"device_forked"}"#), "forked");
    assert_eq!(supabase(Some("1"), 200, &push_answer().to_string()), "pushed");
}

#[test]
fn what_postgres_says_of_a_value_is_not_kept() {
    let told = |code: &str, message: &str| {
        let body = json!({"code": code, "details": "(secret)", "hint": null, "message": message}).to_string();
        match disposition(Route::Push, answered(Dialect::Supabase, None, 400, &body), NOW) {
            Disposition::Blame(blame) => blame.message,
            other => panic!("{other:?}"),
        }
    };
    let value = r#"invalid input syntax for type uuid: "secret""#;
    assert_eq!(told("22P02", value), "The database refused it (22P02).");
    assert_eq!(told("42703", value), "The database refused it (42703).");
    let constraint = r#"duplicate key value violates unique constraint "pins_pkey""#;
    assert_eq!(told("23505", constraint), constraint);
    assert_eq!(told("P0001", "Only on weekdays"), "Only on weekdays");
}

#[test]
fn a_message_is_kept_short_and_in_one_line() {
    let detail = format!("a\nb{}", "x".repeat(1_000));
    let Disposition::Blame(blame) = disposition(Route::Push, ours(400, json!({"detail": detail})), NOW) else {
        panic!("a 400 is blame");
    };
    assert!(blame.message.starts_with("abx") && blame.message.len() == MESSAGE_CHARS);
}

#[test]
fn retry_after_in_seconds_and_as_a_date() {
    let hour = Some(RETRY_AFTER_MAX_MS);
    for (text, expected) in [
        ("1", Some(1_000)),
        (" 120 ", Some(120_000)),
        ("0", None),
        ("3600", hour),
        ("86400", hour),
        ("18446744073709551615", hour),
        ("99999999999999999999999", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Fri, 15 Jan 2027 08:00:10 GMT", Some(10_000)),
        ("Friday, 15-Jan-27 08:00:10 GMT", Some(10_000)),
        ("Fri, 15 Jan 2027 07:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", hour),
    ] {
        assert_eq!(retry_after_ms(text, NOW), expected, "{text:?}");
    }
}

#[test]
fn waits_grow_to_their_limit() {
    let highest = Draw(|_, high| high);
    let waits: Vec<u64> = (0..10).map(|waits| operation_backoff(waits, &highest)).collect();
    assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]);
    assert_eq!(operation_backoff_ms(u32::MAX), BACKOFF_MAX_MS);
}

proptest! {
    #[test]
    fn connection_waits_stay_between_a_second_and_five_minutes(draws in prop::collection::vec(any::<bool>(), 1..40)) {
        let mut previous = 0;
        for high in draws {
            let draw: fn(u64, u64) -> u64 = if high { |_, high| high } else { |low, _| low };
            let next = connection_backoff_ms(previous, &Draw(draw));
            prop_assert!((CONNECTION_BACKOFF_MIN_MS..=BACKOFF_MAX_MS).contains(&next));
            prop_assert!(next <= previous.max(CONNECTION_BACKOFF_MIN_MS) * 3);
            previous = next;
        }
    }

    #[test]
    fn operation_waits_never_pass_their_limit(n in any::<u32>()) {
        prop_assert!(operation_backoff(n, &Draw(|_, high| high)) <= operation_backoff_ms(n.saturating_add(1)));
        prop_assert!(operation_backoff_ms(n) <= operation_backoff_ms(n.saturating_add(1)));
    }

    #[test]
    fn a_cut_wait_is_never_longer_than_it_was_drawn(until in -1_000_000i64..1_000_000, ms in 0u64..100_000, now in 0i64..100_000) {
        let (until, now) = (Timestamp::from_millis(until), Timestamp::from_millis(now));
        let cut = cut(until, ms, now);
        prop_assert!(cut <= until && cut.millis() - now.millis() <= i64::try_from(ms).unwrap());
    }

    #[test]
    fn no_answer_makes_it_panic(status in 100u16..600, header in prop::option::of("[0-9a-z]{0,3}"), body in any::<Vec<u8>>(), wait in "\\PC{0,20}") {
        for dialect in [Dialect::Syncline, Dialect::Supabase] {
            let (protocol, retry_after) = (header.clone(), Some(wait.clone()));
            let outcome = Outcome::Answered(Response { status, protocol, retry_after, body: body.clone(), dialect });
            disposition(Route::Push, outcome, NOW);
        }
    }

    #[test]
    fn no_error_object_makes_it_panic(status in 300u16..600, code in "\\PC{0,8}", message in "\\PC{0,20}") {
        postgrest(status, &code, &message);
    }
}
