//! What a verified token says reaches the functions that decide in the database, all of it.

use serde_json::{Value, json};
use syncline_server::auth::{AuthConfig, Keys, Secret, Verifier};
use syncline_server::{Claims, Concurrent as _, PostgresConfig, PostgresEndpoint, Request, SystemRandom};

const SECRET: &str = "a secret of the tests, 32 bytes or more";
const SCHEMA: &str = "
    CREATE TABLE public.notes (scope text NOT NULL, id text NOT NULL, title text, clock jsonb, PRIMARY KEY (scope, id));
    CREATE FUNCTION public.may_write(p_claims jsonb, p_changes syncline.change[]) RETURNS boolean[]
    LANGUAGE sql STABLE SET search_path = '' AS $$
      SELECT array_agg(p_claims #>> '{app_metadata,grade}' = 'lead' AND p_claims ->> 'role' = 'authenticated') FROM unnest(p_changes)
    $$;
    SELECT syncline.register_table('note', 'public.notes', p_authorize => 'public.may_write(jsonb,syncline.change[])');";

/// A token with more in it, verified as the server verifies it.
fn verified(more: Value) -> Claims {
    let mut claims = json!({ "sub": "ada", "scope": "team", "aud": "syncline", "exp": 4_000_000_000_u64 });
    more.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let config = AuthConfig {
        keys: Keys::Hs256 { secret: Secret::new(SECRET) },
        audience: vec!["syncline".into()],
        issuer: None,
        scope_claim: "scope".into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let verifier = Verifier::new(&config).unwrap();
    runtime.block_on(verifier.verify(&token, "2026-05-01T12:00:00Z".parse().unwrap())).unwrap()
}

#[test]
fn authorize_functions_see_the_whole_token() {
    let database = crate::database("claims");
    crate::sql("claims", SCHEMA);
    let endpoint = PostgresEndpoint::open(&PostgresConfig::new(database.url()), false).unwrap();
    let ask = |request: Request<'_>, claims: &Claims| {
        let answer = endpoint.handle(request, claims, "2026-05-01T12:00:00Z".parse().unwrap(), &mut SystemRandom);
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let mut body = json!({ "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "d", "limit": 1,
        "sent_at": "2026-05-01T12:00:00Z" });
    let lead = json!({ "app_metadata": { "grade": "lead" } });
    body["epoch"] = ask(Request::Pull(body.to_string().as_bytes()), &verified(lead.clone()))["epoch"].clone();
    let cases = [
        (json!({}), "rejected"),
        (json!({ "app_metadata": { "grade": "guest" } }), "rejected"),
        (json!({ "app_metadata": { "grade": "lead" }, "role": "anon" }), "rejected"),
        // What no text of the database holds leaves who asks, and nothing more.
        (json!({ "app_metadata": { "grade": "lead" }, "nick": "a\u{0}" }), "rejected"),
        (lead, "applied"),
    ];
    for (number, (token, expected)) in cases.into_iter().enumerate() {
        body["operations"] = json!([{ "id": format!("o{number}"), "idempotency_key": format!("k{number}"), "sequence": number + 1,
            "operation": "create", "entity_type": "note", "entity_id": format!("n{number}"), "payload": { "title": "x" },
            "timestamp": "2026-05-01T12:00:00Z" }]);
        let answer = ask(Request::Push(body.to_string().as_bytes()), &verified(token.clone()));
        // An operation that was applied as it was sent is not told of.
        let status = answer["results"]
            .as_array()
            .unwrap()
            .first()
            .map_or("applied", |result| result["status"].as_str().unwrap());
        assert_eq!(status, expected, "{token}: {answer}");
    }
    assert_eq!(crate::sql("claims", "SELECT string_agg(id, ',') FROM public.notes"), "n4");
}
