use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::{frozen_file, json, run, stderr, stdout, syncline, text};

/// A copy that may be damaged.
fn copy(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("device.db");
    fs::copy(frozen_file(), &file).unwrap();
    file
}

#[test]
fn the_overview_says_what_waits_what_blocks_and_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy(folder.path());
    let output = run(["inspect", text(&file)]);
    let shown = stdout(&output);
    assert!(output.status.success());
    assert!(shown.contains("10 waiting · 2 failed · 1 conflict        oldest 1,"), "{shown}");
    assert!(shown.contains("pin kept: #3 failed (No.) holds 1 behind it"), "{shown}");
    assert!(shown.contains("pin e: f   mine 1 · theirs 2"), "{shown}");
    assert!(shown.contains("Next:  syncline inspect"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours into a pipe: {shown:?}");
}

#[test]
fn json_has_the_figures_with_timestamps_and_ages() {
    let folder = tempfile::tempdir().unwrap();
    let overview = json(&run(["inspect", text(&copy(folder.path())), "--json"]));
    let metrics = &overview["metrics"];
    assert_eq!(
        [&metrics["pending"], &metrics["in_progress"], &metrics["failed"], &metrics["conflicted"]],
        [8, 2, 2, 1]
    );
    assert_eq!(metrics["last_successful_sync"]["at"], "2023-11-14T22:13:20.000Z");
    assert!(metrics["last_successful_sync"]["age_ms"].as_i64().unwrap() > 0);
    assert_eq!(overview["conflicts"][0]["conflict"]["fields"]["f"]["base"], 0);
    assert_eq!(overview["troubled"].as_array().unwrap().len(), 3);
}

#[test]
fn an_operation_is_found_by_sequence_or_id_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy(folder.path());
    for id in ["4", "#4", "op-0004"] {
        let shown = stdout(&run(["inspect", text(&file), "--operation", id]));
        assert!(shown.contains("Waits for an earlier change of the same pin that was rejected: No."), "{id}: {shown}");
        assert!(shown.contains("op-0003"), "{id}: {shown}");
    }
    let explained = json(&run(["inspect", text(&file), "--operation", "4", "--json"]));
    assert_eq!(explained["explanation"]["waiting"], "lane_blocked");
    assert_eq!(explained["operation"]["sequence"], 4);

    let several = run(["inspect", text(&file), "--operation", "op-"]);
    assert_eq!(several.status.code(), Some(7));
    let none = run(["inspect", text(&file), "--operation", "4711"]);
    assert_eq!(none.status.code(), Some(7));
    assert!(stderr(&none).contains("no operation 4711"));
}

#[test]
fn a_conflict_is_shown_with_all_three_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy(folder.path());
    let shown = stdout(&run(["inspect", text(&file), "--conflict", "c-op"]));
    for part in ["manual", "base     0", "mine     1", "theirs   2", "the app must decide"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(stdout(&run(["inspect", text(&file), "--conflicts"])).contains("undecided"));
    assert_eq!(run(["inspect", text(&file), "--conflict", "nonsense"]).status.code(), Some(7));
}

#[test]
fn looking_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy(folder.path());
    let before = fs::read(&file).unwrap();
    run(["inspect", text(&file)]);
    run(["inspect", text(&file), "--operation", "1"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no files beside it");
}

#[test]
fn a_file_in_use_is_read_beside_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let file = copy(folder.path());
    let writer = Connection::open(&file).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE device SET user_id = 'unseen'").unwrap();
    let shown = json(&run(["inspect", text(&file), "--json"]));
    assert_eq!(shown["device"]["user_id"], "user");
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(json(&run(["inspect", text(&file), "--json"]))["device"]["user_id"], "unseen");
}

#[test]
fn what_is_no_device_file_is_refused_with_a_reason_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text.db"), "not a database, but long enough to be read as the header of one ".repeat(10)).unwrap();
    fs::write(at("empty.db"), "").unwrap();
    Connection::open(at("other.db")).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    let newer = copy(folder.path());
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();

    let cases = [
        (at("missing.db"), 3, "there is no such file"),
        (at("text.db"), 4, "not a SQLite database"),
        (at("empty.db"), 4, "not a Syncline database"),
        (at("other.db"), 4, "another program"),
        (newer, 5, "schema 99"),
        (folder.path().to_owned(), 3, ""),
    ];
    for (file, code, sentence) in cases {
        let before = fs::read(&file).ok();
        let output = run(["inspect", text(&file)]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{}: {said}", file.display());
        assert!(said.contains(sentence) && said.lines().count() == 1, "{}: {said}", file.display());
        assert_eq!(fs::read(&file).ok(), before);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = syncline(["inspect", text(&copy(folder.path()))]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
