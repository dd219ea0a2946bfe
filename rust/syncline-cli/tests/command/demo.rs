use std::fs;
use std::process::{Child, Output, Stdio};

use super::{json, run, stderr, stdout, syncline, text};

/// Small enough to be quick, large enough for every event.
const SMALL: [&str; 3] = ["demo", "--operations", "220"];

fn start<'a>(more: impl IntoIterator<Item = &'a str>) -> Child {
    let mut command = syncline(SMALL.into_iter().chain(more));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

#[test]
fn the_day_ends_with_every_promise_kept_and_every_event_seen() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let output = finish(start(["--seed", "7", "--json", "--keep", text(&kept)]));
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["holds"], true);
    assert_eq!(report["checks"].as_array().unwrap().len(), 8);
    assert_eq!(report["events"].as_array().unwrap().len(), 15);
    assert!(report["events"].as_array().unwrap().iter().all(|event| event["times"].as_u64() > Some(0)), "{report:#}");
    assert!(report["story"]["killed_at"].as_u64() > Some(0));
    assert!(stderr(&output).is_empty(), "no progress without a terminal");

    let device = kept.join("phone-2.db");
    let overview = json(&run(["inspect", text(&device), "--json"]));
    assert_eq!(overview["metrics"]["failed"], 3, "the refused transaction");
    assert!(stdout(&run(["inspect", text(&device), "--conflicts"])).contains("update_wins"));
    let again = run(SMALL.into_iter().chain(["--keep", text(&kept)]));
    assert_eq!(again.status.code(), Some(3), "a folder with files in it is left alone");
}

#[test]
fn each_sabotage_is_noticed_and_named() {
    let cases = [
        ("lose", "the server never decided it: it is lost"),
        ("double", "was applied 2 times"),
        ("reorder", "the lane's order is broken"),
        ("diverge", "its replica differs from the server, first in pin "),
    ];
    let days = cases.map(|(kind, sentence)| (kind, sentence, start(["--sabotage", kind])));
    for (kind, sentence, day) in days {
        let output = finish(day);
        let report = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{kind}: {report}");
        assert!(report.contains(sentence) && report.contains("Promises are broken."), "{kind}: {report}");
        assert!(report.contains("15 of 15 scripted events happened"), "{kind}: {report}");
        assert!(stderr(&output).contains("the demo's promises do not hold"), "{kind}");
        assert_eq!(report.matches("is lost").count(), usize::from(kind == "lose"), "{kind}: {report}");
    }
}

/// Whether a process is there and not merely waiting to be collected.
#[cfg(target_os = "linux")]
pub(super) fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[cfg(target_os = "linux")]
pub(super) fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Whether it comes to pass within half a minute.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "other processes run in real time")]
pub(super) fn eventually(mut happened: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !happened() {
        if start.elapsed().as_secs() > 30 {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// However the demo ends, its processes end with it.
#[cfg(target_os = "linux")]
#[test]
fn a_demo_that_is_stopped_or_killed_leaves_nobody_behind() {
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        // One that is killed cannot remove its files.
        let folder = tempfile::tempdir().unwrap();
        let mut demo = syncline(SMALL).env("TMPDIR", folder.path()).stderr(Stdio::null()).spawn().unwrap();
        let mut team = Vec::new();
        let complete = eventually(|| {
            team = children(demo.id());
            team.len() == 4
        });
        assert!(complete, "the endpoint and three devices start");
        std::process::Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap();
        assert_eq!(demo.wait().unwrap().code(), code, "{signal}");
        assert!(eventually(|| !team.iter().any(|process| lives(*process))), "{signal}");
    }
}
