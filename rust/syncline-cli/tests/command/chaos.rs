use super::{json, run, stderr, stdout};

/// Long enough for a few kills.
const SHORT: [&str; 3] = ["chaos", "--minutes", "0.2"];

#[test]
fn a_short_run_kills_breaks_and_drains() {
    let output = run(SHORT.into_iter().chain(["--seed", "7", "--json"]));
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!((&report["holds"], &report["seed"]), (&true.into(), &7.into()));
    for what in ["acknowledged", "device_kills", "endpoint_kills", "copied_files", "decisions"] {
        assert!(report[what].as_u64() > Some(0), "{what}: {report:#}");
    }
    assert!(report["network"]["dropped_after"].as_u64() > Some(0), "{report:#}");
    assert!(stderr(&output).is_empty(), "no progress without a terminal");
}

#[test]
fn each_sabotage_is_noticed_and_named() {
    let cases = [
        ("forget", "was acknowledged, was pending and is gone"),
        ("double", "was applied 2 times"),
        ("lose", "is completed, and was applied 0 times"),
        ("diverge", ": convergence: (\""),
    ];
    for (kind, sentence) in cases {
        let output = run(SHORT.into_iter().chain(["--sabotage", kind]));
        let report = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{kind}: {report}");
        assert!(report.contains(sentence) && report.contains("Rules are broken."), "{kind}: {report}");
        assert!(stderr(&output).contains("the rules do not hold"), "{kind}");
    }
}

/// However it ends, its processes end with it.
#[cfg(target_os = "linux")]
#[test]
fn chaos_that_is_stopped_or_killed_leaves_nobody_behind() {
    use super::demo::{children, eventually, lives};

    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        // One that is killed cannot remove its files.
        let folder = tempfile::tempdir().unwrap();
        let mut chaos = super::syncline(SHORT).env("TMPDIR", folder.path()).spawn().unwrap();
        let mut cast = Vec::new();
        let complete = eventually(|| {
            cast = children(chaos.id());
            cast.len() == 5
        });
        assert!(complete, "the endpoint and four devices start");
        std::process::Command::new("kill").args([signal, &chaos.id().to_string()]).status().unwrap();
        assert_eq!(chaos.wait().unwrap().code(), code, "{signal}");
        assert!(eventually(|| !cast.iter().any(|process| lives(*process))), "{signal}");
    }
}
