//! `syncline serve --postgres`. Needs PostgreSQL: run by the part `postgres` of `scripts/test`.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use syncline_testkit::postgres::{Cluster, Durability};

use super::serve::Endpoint;
use super::{json, run, stderr, syncline, text};

fn refused(folder: &Path, url: &str, more: &[&str]) -> Output {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--postgres", url];
    syncline(arguments.iter().chain(more).copied()).current_dir(folder).output().unwrap()
}

#[test]
fn a_database_keeps_every_guarantee() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("endpoint.db");
    let cluster = Cluster::start(Durability::None);
    let url = cluster.empty_database("tortured").url().to_owned();
    let mut endpoint = Endpoint::start(&data, &["--json", "--postgres", &url, "--migrate"]);
    let ready: Value = serde_json::from_str(&endpoint.line()).unwrap();
    let address = format!("http://{}", ready["listening"].as_str().unwrap());
    let output = run(["torture", &address, "--data", text(&data), "--seed", "7", "--json"]);
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    let all = report["guarantees"].as_array().unwrap().len();
    assert!(all >= 54 && report["passed"] == all && report["skipped"] == 0, "{report:#}");
    assert!(!data.exists(), "there is no SQLite file");
}

#[test]
fn a_database_of_another_version_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Durability::None);
    let empty = cluster.empty_database("empty").url().to_owned();
    let newer = cluster.database("newer").url().to_owned();
    cluster.sql(
        "newer",
        "INSERT INTO supabase_migrations.schema_migrations (version, name) VALUES ('29991231000000', 'syncline_later')",
    );
    std::fs::write(folder.path().join("types.json"), r#"{"types": {"pin": {"conflict_rule": "manual"}}}"#).unwrap();
    let nowhere = format!("host={} user=postgres dbname=nowhere", cluster.socket().display());
    for (url, more, code, sentence) in [
        (&empty, &[][..], 1, "start once with --migrate"),
        (&newer, &[], 1, "29991231000000, which this version does not know"),
        (&newer, &["--migrate"], 1, "29991231000000, which this version does not know"),
        (&empty, &["--config", "types.json"], 2, "syncline.configure_types"),
        (&nowhere, &[], 1, "nowhere"),
    ] {
        let output = refused(folder.path(), url, more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {said}");
        assert!(said.contains(sentence) && said.trim().lines().count() == 1, "{more:?}: {said}");
    }
}
