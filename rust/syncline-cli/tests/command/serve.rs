use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use super::{json, run, stderr, stdout, syncline, text};

/// An endpoint on a port of the system's choice; ended when dropped.
pub(super) struct Endpoint {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Endpoint {
    pub(super) fn start(data: &Path, more: &[&str]) -> Self {
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--data", text(data)].into_iter().chain(more.iter().copied());
        let mut command = syncline(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Asks it to stop as a service manager does, and gives its exit code.
    fn terminate(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

fn pull(address: &str, token: &str, user: &str) -> String {
    let body = format!(r#"{{"protocol":1,"user_id":"{user}","scope":"team-1","device_id":"A","limit":10}}"#);
    let head =
        format!("POST /v1/pull HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json");
    ask(address, &format!("{head}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn it_serves_with_a_secret_and_a_token_of_its_own_and_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("endpoint.db");
    let mut endpoint = Endpoint::start(&data, &["--json"]);
    let ready: Value = serde_json::from_str(&endpoint.line()).unwrap();
    let (address, token) = (ready["listening"].as_str().unwrap(), ready["token"].as_str().unwrap());
    let health = get(address, "/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("syncline-protocol: 1"), "{health}");
    assert!(get(address, "/openapi.json").contains("\"openapi\""));
    assert!(pull(address, token, "dev").starts_with("HTTP/1.1 200"));
    assert!(pull(address, "nonsense", "dev").starts_with("HTTP/1.1 401"));

    let other = run(["token", "--data", text(&data), "--user", "ana"]);
    assert!(pull(address, stdout(&other).trim(), "ana").starts_with("HTTP/1.1 200"));
    assert_eq!(json(&run(["token", "--data", text(&data), "--json"]))["user"], "dev");
    assert_eq!(endpoint.terminate(), Some(0));

    // The secret stays: the token is good for the next start too.
    let mut endpoint = Endpoint::start(&data, &["--json"]);
    let ready: Value = serde_json::from_str(&endpoint.line()).unwrap();
    assert!(pull(ready["listening"].as_str().unwrap(), token, "dev").starts_with("HTTP/1.1 200"));
}

#[test]
fn it_tells_people_where_it_listens_and_what_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let mut endpoint = Endpoint::start(&folder.path().join("endpoint.db"), &[]);
    let said: String = (0..4).map(|_| endpoint.line()).collect();
    for part in ["Syncline endpoint on http://127.0.0.1:", "protocol 1", "Development token", "(24 h)", "Try:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn it_ends_with_the_program_that_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut endpoint = Endpoint::start(&folder.path().join("endpoint.db"), &["--json", "--until-stdin-closes"]);
    endpoint.line();
    drop(endpoint.child.stdin.take());
    assert!(endpoint.child.wait().unwrap().success());
}

#[test]
fn what_stops_it_from_starting_is_said_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    write("text.db", &"not a database ".repeat(100));
    write("bad.json", r#"{"types": {"pin": {"colour": "red"}}}"#);
    write("short.secret", "short");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--listen", &address], 6, "the port is in use"),
        (&["--data", "text.db"], 4, "text.db"),
        (&["--data", "no/such/folder.db"], 3, "no such file or folder"),
        (&["--config", "missing.json"], 3, "missing.json"),
        (&["--config", "bad.json"], 1, "line 1 column"),
        (&["--jwt-secret-file", "short.secret"], 3, "fewer than 32"),
        (&["--jwks-file", "keys.json"], 2, "--jwt-algorithm"),
    ];
    for (arguments, code, sentence) in cases {
        let listen: &[&str] = if arguments[0] == "--listen" { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut command = syncline(["serve"].iter().chain(listen).chain(arguments).copied());
        let output = command.current_dir(folder.path()).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
    let output = run(["token", "--data", text(&folder.path().join("never-started.db"))]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn the_openapi_document_is_printed_without_serving() {
    let document = json(&run(["serve", "--openapi"]));
    assert!(document["paths"]["/v1/push"].is_object());
}
