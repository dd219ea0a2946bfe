use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;
use syncline_server::auth::{AuthConfig, Keys, Secret, Verifier};
use syncline_server::endpoint::types::Types;
use syncline_server::{Embedded, EndpointLimits, LimitsConfig, Server, SqliteStore, SystemClock, SystemRandom};
use syncline_testkit::{BrokenEndpoint, Flaw};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::serve::Endpoint;
use super::{json, run, stderr, stdout, syncline, text};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// An endpoint of our own, and its data file.
fn start(folder: &Path) -> (Endpoint, String, PathBuf) {
    let data = folder.join("endpoint.db");
    let mut endpoint = Endpoint::start(&data, &["--json"]);
    let ready: Value = serde_json::from_str(&endpoint.line()).unwrap();
    let url = format!("http://{}", ready["listening"].as_str().unwrap());
    (endpoint, url, data)
}

fn ids(report: &Value, result: &str) -> BTreeSet<String> {
    let all = report["guarantees"].as_array().unwrap().iter();
    all.filter(|one| one["result"] == result).map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn token(data: &Path, user: &str, scope: &str) -> String {
    stdout(&run(["token", "--data", text(data), "--user", user, "--scope", scope])).trim().to_owned()
}

#[test]
fn our_endpoint_keeps_every_guarantee_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_endpoint, url, data) = start(folder.path());
    let output = run(["torture", &url, "--data", text(&data), "--seed", "7", "--json"]);
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(
        (&report["holds"], &report["seed"], &report["endpoint"]),
        (&true.into(), &7.into(), &url.as_str().into())
    );
    assert_eq!((&report["failed"], &report["skipped"]), (&0.into(), &0.into()));
    let all = report["guarantees"].as_array().unwrap();
    assert_eq!(report["passed"], all.len());
    assert!(all.len() >= 50 && ids(&report, "PASS").len() == all.len(), "ids are given twice");
    for one in all {
        for member in ["id", "sentence", "spec", "what"] {
            assert!(one[member].as_str().is_some_and(|text| !text.is_empty()), "{one}");
        }
    }
    assert!(stderr(&output).is_empty(), "no progress without a terminal");
    assert!(report["left"].as_str().unwrap().contains("records of the run were deleted"), "{report:#}");

    // A second run finds the first one's traces, and does without what nobody gave it.
    let ours = token(&data, "dev", "team-1");
    let mut command = syncline(["torture", &url, "--keep-epoch", "--json"]);
    let output = command.env("SYNCLINE_TOKEN", &ours).output().unwrap();
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    let skipped: BTreeSet<String> = ["wrong_device", "scope_isolation", "mark_ahead"].map(str::to_owned).into();
    assert_eq!(ids(&report, "SKIPPED"), skipped);
    assert!(!stdout(&output).contains(&ours), "a token is told");

    let theirs = token(&data, "ana", "team-2");
    let people = ["--other-token", &theirs, "--other-user", "ana", "--other-scope", "team-2"];
    let output = run(["torture", &url, "--token", &ours].into_iter().chain(people));
    let told = stdout(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("PASS     scope_isolation") && told.contains("SKIPPED  wrong_device"), "{told}");
    assert!(told.contains("Every guarantee that was judged holds."), "{told}");
    assert!(!told.contains('\u{1b}') && !told.contains(&ours) && !told.contains(&theirs), "{told}");

    let output = run(["torture", &url, "--data", text(&data), "--seed", "7"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("this seed was used at this endpoint before"), "{}", stderr(&output));
}

/// The guarantees that an endpoint with a flaw cannot keep.
fn broken_by(flaw: Flaw) -> &'static [&'static str] {
    match flaw {
        Flaw::ForgetsKeys => &[
            "conflict_ledger",
            "cut_connections",
            "dense_versions",
            "fork_goes_on",
            "key_reuse",
            "key_reuse_reveals",
            "late_duplicates",
            "left_out",
            "lost_answers",
            "mark_counts",
            "parallel_duplicates",
            "payload_fidelity",
            "second_key",
            "transaction_all",
            "transaction_none",
            "void_known",
            "void_unknown",
        ],
        Flaw::SplitsTransactions => &["transaction_deferred", "transaction_none"],
        Flaw::BelievesTheFuture => &["future_clamped"],
        Flaw::JudgesByArrival => &["conflict_ledger", "create_of_live", "equal_value", "last_writer_wins"],
        Flaw::IgnoresBaseClocks => &[
            "conflict_ledger",
            "create_of_live",
            "delete_unseen_write",
            "device_forked",
            "equal_value",
            "field_merge",
            "future_clamped",
            "last_writer_wins",
            "seen_tombstone",
            "write_unseen_delete",
        ],
        Flaw::LosesTheLedger => &[
            "conflict_ledger",
            "create_of_live",
            "delete_unseen_write",
            "equal_value",
            "last_writer_wins",
            "seen_tombstone",
            "write_unseen_delete",
        ],
        Flaw::SkipsAtPageEnds | Flaw::EndsEveryPage => &["no_gap", "transaction_readers"],
        Flaw::KeepsOldFilters => &["cursor_reset"],
        Flaw::TrustsTheScope => &["wrong_scope"],
        Flaw::SharesKeys => &["scope_isolation"],
        Flaw::OverlooksEmptyPushes => &["mark_counts"],
        Flaw::NeedsNoEpoch => &["epoch_required"],
        Flaw::AdoptsForks => &["device_forked"],
        Flaw::AppliesVoided => &["void_unknown"],
        Flaw::ConfirmsWhatIsMissing => {
            &["deferred", "dry_run", "missing_record", "second_key", "transaction_none", "void_known"]
        }
        Flaw::RevealsReusedKeys => &["key_reuse_reveals"],
        Flaw::CommitsDryRuns => &["dry_run", "mark_counts"],
        Flaw::LeavesOutTooMuch => &["left_out"],
        Flaw::PlainProblems => &["problem_form"],
    }
}

/// Serves an endpoint with a flaw on a port of the system's choice, for as long as the runtime lives.
fn serve(runtime: &Runtime, flaw: Flaw) -> SocketAddr {
    let store = SqliteStore::open_in_memory().unwrap();
    let endpoint = Embedded::new(store, Types::default(), EndpointLimits::default());
    let auth = AuthConfig {
        keys: Keys::Hs256 { secret: Secret::new(SECRET) },
        audience: vec!["syncline".into()],
        issuer: None,
        scope_claim: "scope".into(),
    };
    let endpoint = Box::new(BrokenEndpoint::new(endpoint, flaw));
    let verifier = Verifier::new(&auth).unwrap();
    let (clock, random) = (Box::new(SystemClock), Box::new(SystemRandom));
    let server = Server::new(endpoint, verifier, LimitsConfig::default(), clock, random).unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(server.serve(listener, std::future::pending()));
    address
}

fn torture(address: SocketAddr, data: &Path) -> Child {
    let mut command = syncline(["torture", &format!("http://{address}"), "--data", text(data), "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn each_flaw_breaks_exactly_its_guarantees() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("endpoint.db");
    fs::write(folder.path().join("endpoint.db.secret"), SECRET).unwrap();
    let runtime = Runtime::new().unwrap();
    let mut wrong = Vec::new();
    for flaws in Flaw::ALL.chunks(4) {
        let runs: Vec<_> = flaws.iter().map(|flaw| (*flaw, torture(serve(&runtime, *flaw), &data))).collect();
        for (flaw, child) in runs {
            let output = child.wait_with_output().unwrap();
            let report = json(&output);
            let expected: BTreeSet<String> = broken_by(flaw).iter().map(|id| (*id).to_owned()).collect();
            let found = ids(&report, "FAIL");
            if found != expected || output.status.code() != Some(1) {
                wrong.push(format!("{flaw:?}: {found:?}"));
            }
            let shown = report["guarantees"].as_array().unwrap().iter().filter(|one| one["result"] == "FAIL");
            assert!(shown.clone().all(|one| one["what"].is_string()), "{report:#}");
            assert!(stderr(&output).contains("does not keep every guarantee"), "{flaw:?}: {}", stderr(&output));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    runtime.shutdown_background();
}

#[test]
fn what_keeps_it_from_running_is_said_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let never = text(&folder.path().join("never-started.db")).to_owned();
    let cases: [(&[&str], i32, &str); 7] = [
        (&[&nobody, "--token", "x"], 2, "no answer"),
        (&[&nobody], 2, "there is no token"),
        (&["http://10.1.2.3", "--token", "x"], 2, "--allow-cleartext"),
        (&["nonsense", "--token", "x"], 2, "not an absolute one"),
        (&[&nobody, "--token", "a b"], 2, "no header takes"),
        (&[&nobody, "--token", "x", "--other-token", "y"], 2, "--other-user"),
        (&[&nobody, "--data", &never], 3, "no such file"),
    ];
    for (arguments, code, sentence) in cases {
        let mut command = syncline(["torture"].iter().chain(arguments).copied());
        let output = command.env_remove("SYNCLINE_TOKEN").env_remove("SYNCLINE_OTHER_TOKEN").output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
    let (_endpoint, url, data) = start(folder.path());
    let output = run(["torture", &url, "--token", "not-a-token"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("401"), "{}", stderr(&output));
    let output = run(["torture", &url, "--data", text(&data), "--entity-type", "Not a name"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
