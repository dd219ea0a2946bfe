//! `syncline serve --postgres`. Needs PostgreSQL: run by the part `postgres` of `scripts/test`.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use syncline_testkit::postgres::{Cluster, Durability};

use super::serve::Endpoint;
use super::{json, run, stderr, stdout, syncline, text};

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

/// A table that is no longer what was registered: here by a policy that was added since.
#[test]
fn inspect_shows_what_is_wrong_with_a_registered_table() {
    let cluster = Cluster::start(Durability::None);
    let url = cluster.database("inspected").url().to_owned();
    let inspect = |more: &[&str]| run(["inspect", "--postgres", &url].iter().chain(more).copied());
    assert!(stdout(&inspect(&[])).contains("No entity type"));
    cluster.sql(
        "inspected",
        "CREATE TABLE public.notes (scope text NOT NULL, id text NOT NULL, title text, clock jsonb, PRIMARY KEY (scope, id));
         ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
         SELECT syncline.register_table('note', 'public.notes');",
    );
    let output = inspect(&["--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        json(&output),
        serde_json::json!({ "tables": [{ "entity_type": "note", "table": "notes", "problems": [] }] })
    );

    cluster.sql(
        "inspected",
        "CREATE POLICY mine ON public.notes FOR DELETE TO authenticated USING (title = current_user)",
    );
    let output = inspect(&[]);
    let said = stdout(&output);
    assert!(said.contains("note") && said.contains("its policy mine says more than the scope check"), "{said}");
    assert_eq!((output.status.code(), stderr(&output).contains("finding")), (Some(1), true));
    let found = json(&inspect(&["--json"]))["tables"][0]["problems"].as_array().unwrap().len();
    assert_eq!(found, said.matches('!').count());

    // Without a value, the environment says where.
    let environment = syncline(["inspect", "--postgres"]).env("SYNCLINE_POSTGRES", &url).output().unwrap();
    assert_eq!(environment.status.code(), Some(1));
    assert!(
        stderr(&syncline(["inspect", "--postgres"]).env_remove("SYNCLINE_POSTGRES").output().unwrap())
            .contains("SYNCLINE_POSTGRES")
    );
}
