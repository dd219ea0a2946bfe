//! Which function is called, and with what.

use reqwest::Method;

use crate::stage::{Stage, answer};

#[tokio::test]
async fn a_single_unnamed_json_parameter_receives_the_whole_body_as_it_arrived() {
    let stage = Stage::new("whole").await;
    let body = r#"{"n":9007199254740993, "x":1e400, "y":1.0,"a":1,"a":2, "s":"\u0001"}"#;
    let answered = stage.post("whole", body).await;
    assert_eq!((answered.status, answered.text), (200, format!(r#"{{"got" : {body}}}"#)));
    for body in ["[1,{}]", "null", "\"text\"", " {} "] {
        assert_eq!(stage.post("whole", body).await.text, format!(r#"{{"got" : {body}}}"#));
    }
}

#[tokio::test]
async fn otherwise_the_members_of_the_body_are_the_arguments() {
    let stage = Stage::new("named").await;
    assert_eq!(stage.post("add", r#"{"a":1,"b":2}"#).await.text, "3");
    assert_eq!(stage.post("greet", r#"{"name":"Ada"}"#).await.text, r#""Good day, Ada""#, "one has a default");
    assert_eq!(stage.post("nothing", "{}").await.status, 204);
}

#[tokio::test]
async fn a_get_takes_its_arguments_from_the_query_and_may_not_write() {
    let stage = Stage::new("get").await;
    let got = answer(stage.request(Method::GET, "add?a=1&b=41")).await;
    assert_eq!((got.status, got.text.as_str()), (200, "42"));
    answer(stage.request(Method::GET, "note?note=x")).await.is_error(405, "25006");
    assert_eq!(stage.sql("select count(*) from notes"), "0");
}

#[tokio::test]
async fn a_post_may_write_only_through_a_volatile_function() {
    let stage = Stage::new("volatility").await;
    assert_eq!(stage.post("note", r#"{"note":"x"}"#).await.status, 200);
    stage.post("stable_write", "{}").await.is_error(405, "25006");
    assert_eq!(stage.sql("select string_agg(note, ',') from notes"), "x");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let stage = Stage::new("methods").await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        answer(stage.request(method, "add")).await.is_error(405, "PGRST101");
    }
}

#[tokio::test]
async fn a_function_that_is_not_there_is_said_so() {
    let stage = Stage::new("missing").await;
    let body = stage.post("syncline_push", r#"{"protocol":1}"#).await.is_error(404, "PGRST202");
    assert_eq!(body["message"], "Could not find the function public.syncline_push(protocol) in the schema cache");
    assert!(body["details"].as_str().unwrap().contains("single unnamed json/jsonb parameter"), "{body}");
    stage.post("add", r#"{"a":1,"c":2}"#).await.is_error(404, "PGRST202");
    // What one may not call is found all the same.
    stage.post("denied", "{}").await.is_error(403, "42501");
}

#[tokio::test]
async fn functions_that_differ_in_types_alone_cannot_be_told_apart() {
    let stage = Stage::new("overloaded").await;
    stage.post("twice", r#"{"a":1,"b":2}"#).await.is_error(300, "PGRST203");
}

#[tokio::test]
async fn the_profile_header_chooses_among_the_exposed_schemas() {
    let stage = Stage::new("profile").await;
    let ask = |profile: &'static str| {
        let request = stage.request(Method::POST, "where_am_i").header("content-profile", profile);
        answer(request.header("content-type", "application/json").body("{}"))
    };
    assert_eq!(ask("other").await.json(), "other \"other\", public, extensions");
    ask("public").await.is_error(404, "PGRST202");
    ask("pg_catalog").await.is_error(406, "PGRST106");
}

#[tokio::test]
async fn only_json_is_read_and_given() {
    let stage = Stage::new("media").await;
    let ask = |name: &'static str, value: &'static str| {
        let request = stage.request(Method::POST, "whole").body("{}");
        answer(
            if name == "accept" { request.header("content-type", "application/json") } else { request }
                .header(name, value),
        )
    };
    for good in ["*/*", "application/json", "text/html, application/json;q=0.9", "application/vnd.pgrst.object+json"] {
        assert_eq!(ask("accept", good).await.status, 200, "{good}");
    }
    ask("accept", "text/html").await.is_error(406, "PGRST107");
    assert_eq!(ask("content-type", "application/json; charset=utf-8").await.status, 200);
    ask("content-type", "application/octet-stream").await.is_error(415, "PGRST107");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused_however_deep_it_nests() {
    let stage = Stage::new("malformed").await;
    let deep = "[".repeat(100_000);
    for body in ["", "{", "{}}", deep.as_str()] {
        stage.post("whole", body).await.is_error(400, "PGRST102");
    }
    let whole = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    stage.post("whole", whole).await.is_error(500, "54001");
}

#[tokio::test]
async fn a_packed_body_is_not_unpacked() {
    let stage = Stage::new("packed").await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"{}").unwrap();
    let request = stage.request(Method::POST, "whole").header("content-type", "application/json");
    let packed = request.header("content-encoding", "gzip").body(encoder.finish().unwrap());
    answer(packed).await.is_error(400, "PGRST102");
}
