use super::{run, stderr, stdout};

#[test]
fn help_names_every_command_and_every_exit_code() {
    let output = run(["--help"]);
    let help = stdout(&output);
    assert!(output.status.success());
    for word in ["serve", "token", "inspect", "demo", "torture", "Exit codes", "130"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("demo-device"), "{help}");
    for command in ["serve", "token", "inspect", "demo", "torture"] {
        let help = stdout(&run([command, "--help"]));
        assert!(help.contains("--json") && help.contains("Exit codes"), "{help}");
    }
}

#[test]
fn a_wrong_command_line_is_told_apart() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["demo", "--devices", "1"],
        &["demo", "--sabotage", "burn"],
        &["inspect"],
        &["torture"],
    ] {
        let output = run(arguments.iter().copied());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}");
    }
}
