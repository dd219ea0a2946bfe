//! The demo and chaos on a private Postgres. Run by the part `chaos` of `scripts/test`, which sees to PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::demo::{children, eventually, lives};
use super::{json, run, stderr, stdout, syncline};

const DAY: [&str; 5] = ["demo", "--operations", "220", "--backend", "postgres"];

fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Child {
    syncline(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_day_on_postgres_keeps_every_promise() {
    let output = run(DAY.into_iter().chain(["--seed", "7", "--json"]));
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["holds"], true);
    assert_eq!(report["checks"].as_array().unwrap().len(), 8);
    assert!(report["events"].as_array().unwrap().iter().all(|event| event["times"].as_u64() > Some(0)), "{report:#}");
    assert!(stderr(&output).is_empty(), "no progress without a terminal");
}

/// What the checker reads is what the database held.
#[test]
fn each_sabotage_of_a_day_on_postgres_is_noticed() {
    let cases = [("lose", "it is lost"), ("double", "was applied 2 times"), ("reorder", "order is broken")];
    let days = cases.map(|(kind, sentence)| (kind, sentence, start(DAY.into_iter().chain(["--sabotage", kind]))));
    for (kind, sentence, day) in days {
        let output = day.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind}: {}", stdout(&output));
        assert!(stdout(&output).contains(sentence), "{kind}: {}", stdout(&output));
    }
}

/// A folder for temporary files that the user of a cluster may use as well.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// The folder of the cluster that was started there.
fn cluster(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("syncline-pg-")))
}

fn postmaster(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("data/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// However it ends, and whenever, the cluster ends with it and its files go.
#[test]
fn a_demo_that_is_stopped_or_killed_leaves_no_cluster_behind() {
    for (signal, is_early) in [("-INT", false), ("-KILL", false), ("-INT", true), ("-KILL", true)] {
        let folder = open_folder();
        let mut demo = syncline(DAY).env("TMPDIR", folder.path()).stderr(Stdio::null()).spawn().unwrap();
        let mut cast = Vec::new();
        let is_ready = eventually(|| {
            cast = children(demo.id());
            // Early: before there is a database. Else: a shell that watches the cluster, the endpoint and three devices.
            let wanted = if is_early { 1 } else { 5 };
            cluster(folder.path()).is_some() && cast.len() >= wanted
        });
        assert!(is_ready, "{signal}");
        cast.extend(cluster(folder.path()).and_then(|cluster| postmaster(&cluster)));
        Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap();
        let code = demo.wait().unwrap().code();
        assert_eq!(code, if signal == "-INT" { Some(130) } else { None }, "{signal}");
        assert!(eventually(|| !cast.iter().any(|process| lives(*process))), "{signal}, early: {is_early}");
        assert!(eventually(|| cluster(folder.path()).is_none()), "{signal}, early: {is_early}");
    }
}

#[test]
fn a_backend_that_there_is_not_is_refused() {
    let output = run(["demo", "--backend", "mysql"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("possible values: sqlite, postgres"), "{}", stderr(&output));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = Command::new("make").args(["--no-print-directory", "demo", "BACKEND=mysql"]).current_dir(root).output();
    let made = made.expect("make runs");
    assert_eq!(made.status.code(), Some(2));
    assert!(stderr(&made).contains("there is no BACKEND=mysql: it is sqlite or postgres"), "{}", stderr(&made));
}

/// A demo that cannot have its cluster says so in one line.
#[test]
fn a_demo_without_postgres_says_what_is_missing() {
    let output = syncline(DAY).env("SYNCLINE_PG_BIN", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("no PostgreSQL 15 or later") && said.trim().lines().count() == 1, "{said}");
}

/// A sample of all parts is run by `scripts/test` by itself.
#[test]
fn chaos_on_postgres_tells_what_was_done() {
    let parts = ["--part", "scopes", "--part", "cursor"];
    let output = run(["chaos-postgres", "--sample", "--seed", "7", "--json"].into_iter().chain(parts));
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!((&report["holds"], &report["seed"]), (&true.into(), &7.into()));
    let [cursor, scopes] = report["parts"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!((&cursor["part"], &scopes["part"]), (&"cursor".into(), &"scopes".into()));
    assert_eq!(cursor["figures"]["versions_met_in_order"], 20_000, "{report:#}");
    assert!(cursor["figures"]["looks_of_the_reader"].as_u64() > Some(50), "{report:#}");
    assert!(scopes["figures"]["requests"].as_u64() >= Some(800), "{report:#}");
    assert!(stderr(&output).is_empty(), "no progress without a terminal");
}

#[test]
fn each_slip_on_postgres_is_noticed_and_named() {
    let cases = [
        ("deaths", "lose", "is completed, and was applied 0 times"),
        ("synchronous", "hurry", "acknowledged operations were not on the synchronous standby"),
        ("cursor", "skip", "20000 versions were committed, 20000 are stored, the reader met "),
        ("scopes", "leak", " gave something away: "),
    ];
    let runs = cases.map(|(part, kind, sentence)| {
        (kind, sentence, start(["chaos-postgres", "--sample", "--part", part, "--sabotage", kind]))
    });
    for (kind, sentence, run) in runs {
        let output = run.wait_with_output().unwrap();
        let report = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{kind}: {report}");
        assert!(report.contains(sentence) && report.contains("Promises are broken."), "{kind}: {report}");
        assert!(stderr(&output).contains("the rules do not hold"), "{kind}");
    }
}
