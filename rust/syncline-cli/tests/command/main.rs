//! The built command, as a person or a script runs it.

#[cfg(feature = "chaos")]
mod chaos;
mod demo;
#[cfg(unix)]
mod fleet;
mod help;
mod inspect;
#[cfg(all(target_os = "linux", feature = "chaos"))]
mod on_postgres;
#[cfg(unix)]
mod postgres;
mod serve;
mod torture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The command with these arguments, in an environment that changes nothing about its output.
fn syncline<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE");
    command
}

fn run<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    syncline(arguments).output().expect("the command was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}

/// A device's file that holds an operation in every state, frozen with the schema.
fn frozen_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../syncline-core/tests/fixtures/device-v1.db")
}
