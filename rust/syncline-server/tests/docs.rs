//! Every JSON example in the docs. Requests are sent to an endpoint, in the order in which they stand on their page, and the
//! answers shown must be the ones that it gives, to the value. A block says what it is in its first line:
//!
//! - `json push`, `json pull`: a request; the endpoint's clock is the request's `sent_at`. `json answer 200`: what it got.
//! - `json types`: a new endpoint with these entity types configured; every page begins with one that has none.
//! - `json config`, `json operation`, `json result`, `json conflict`, `json change`, `json problem`: a value of that kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syncline_protocol::{Change, Conflict, OperationResult, Problem, PushOperation, Timestamp};
use syncline_server::auth::AuthConfig;
use syncline_server::endpoint::types::{TypeConfig, Types};
use syncline_server::{
    Answer, Claims, Embedded, Endpoint, EndpointLimits, LimitsConfig, Random, Request, SqliteStore, contract,
};

struct Block {
    line: usize,
    tag: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<(String, String)> {
    let in_folder = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = in_folder(root()).chain(in_folder(root().join("docs"))).collect();
    files.extend(in_folder(root().join("docs/adr")));
    files.retain(|path| path.extension().is_some_and(|end| end == "md"));
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(tag), None) => open = Some(Block { line: number + 1, tag: tag.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// A fixed sequence of bytes, so that ids in the examples stay the same.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(113);
            *byte = self.0;
        }
    }
}

struct World {
    endpoint: Embedded<SqliteStore>,
    random: Counting,
    now: Timestamp,
    answer: Option<Answer>,
}

impl World {
    fn new(types: BTreeMap<String, TypeConfig>) -> Self {
        let store = SqliteStore::open_in_memory().unwrap();
        let endpoint = Embedded::new(store, Types::new(types).unwrap(), EndpointLimits::default());
        let now = "2026-05-01T12:00:00Z".parse().unwrap();
        Self { endpoint, random: Counting(1), now, answer: None }
    }

    fn send(&mut self, path: &str, text: &str) {
        let body: Value = serde_json::from_str(text).unwrap();
        if let Some(at) = body["sent_at"].as_str() {
            self.now = at.parse().unwrap();
        }
        let user_id = body["user_id"].as_str().unwrap_or("ada").to_owned();
        let claims = Claims::new(user_id, ["team-1".to_owned()].into());
        let request = if path == "push" { Request::Push(text.as_bytes()) } else { Request::Pull(text.as_bytes()) };
        let answer = self.endpoint.handle(request, &claims, self.now, &mut self.random);
        if answer.status == 200 {
            contract::validate_request(&format!("/v1/{path}"), &body).unwrap();
        }
        let body = serde_json::from_str(&answer.body).unwrap();
        contract::validate_answer(&format!("/v1/{path}"), answer.status, &body).unwrap();
        self.answer = Some(answer);
    }

    /// What the last request got, as the pages show it.
    fn answer(&mut self) -> (u16, Value) {
        let answer = self.answer.take().expect("an answer follows its request");
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    fn play(&mut self, block: &Block, words: &[&str]) {
        match words {
            ["types"] => *self = Self::new(typed_only(&block.text)),
            ["push" | "pull"] => self.send(words[0], &block.text),
            ["answer", status] => {
                let (given_status, given) = self.answer();
                let shown: Value = serde_json::from_str(&block.text).unwrap();
                assert_eq!((given_status.to_string().as_str(), &given), (*status, &shown), "given: {given}");
            }
            ["config"] => drop(typed_only::<ConfigFile>(&block.text)),
            ["operation"] => typed::<PushOperation>(&block.text),
            ["result"] => typed::<OperationResult>(&block.text),
            ["conflict"] => typed::<Conflict>(&block.text),
            ["change"] => typed::<Change>(&block.text),
            ["problem"] => typed::<Problem>(&block.text),
            _ => panic!("a JSON block must say what it is, not `{}`", block.tag),
        }
    }
}

/// What `syncline serve --config` reads.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct ConfigFile {
    #[serde(rename = "types")]
    _types: BTreeMap<String, TypeConfig>,
    #[serde(rename = "limits")]
    _limits: LimitsConfig,
    #[serde(rename = "auth")]
    _auth: Option<AuthConfig>,
}

fn typed_only<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

/// Reads a value and writes it again: every member shown is one of the type's.
fn typed<T: DeserializeOwned + Serialize>(text: &str) {
    let shown: Value = serde_json::from_str(text).unwrap();
    let kept = serde_json::to_value(typed_only::<T>(text)).unwrap();
    for (name, member) in shown.as_object().unwrap() {
        let is_default = [json!(null), json!(0), json!(false), json!([]), json!({})].contains(member);
        assert!(is_default || kept.get(name).is_some(), "{name} is not a member");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the last line before a failure names its block")]
fn every_json_example_is_true() {
    let mut requests = 0;
    for (page, text) in pages() {
        let mut world = World::new(BTreeMap::new());
        for block in blocks(&text) {
            let words: Vec<_> = block.tag.split_whitespace().collect();
            assert!(!words.is_empty(), "{page}:{}: a block without a kind", block.line);
            if let ["json", words @ ..] = &words[..] {
                println!("{page}:{}: {}", block.line, block.tag);
                world.play(&block, words);
                requests += usize::from(matches!(words, ["push" | "pull"]));
            }
        }
    }
    assert!(requests >= 10, "the pages show {requests} requests");
}

#[test]
fn every_problem_code_is_in_the_protocol_page() {
    let page = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    for code in syncline_protocol::ProblemCode::ALL {
        let row = format!("| `{}` | {} |", code.as_str(), code.status());
        assert!(page.contains(&row), "docs/protocol.md lacks {row}");
    }
}

#[test]
fn every_member_of_the_wire_is_in_the_protocol_page() {
    let page = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let document: Value = serde_json::from_str(contract::openapi()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas.iter().filter(|(name, _)| *name != "Health") {
        for member in schema["properties"].as_object().into_iter().flatten().map(|(member, _)| member) {
            assert!(page.contains(&format!("`{member}`")), "docs/protocol.md does not explain {name}.{member}");
        }
    }
}
