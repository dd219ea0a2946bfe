//! Vectors as they are written in `contract/`, and reading them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::host::{Ability, Dialect, Http};

/// The sentence that not every endpoint promises.
const KEEPS_TEXT: &str = "adr8.text";

/// One file of vectors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    vectors: Vec<Vector>,
}

/// A vector: what was before, one request with its answer, what is afterwards.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// The file it is in, without its ending.
    #[serde(skip)]
    pub file: String,
    /// What it shows, in words of its own.
    pub name: String,
    /// The sentences that it was written from, as ids of `sentences.json`.
    pub shows: Vec<String>,
    /// The operator's configuration of entity types.
    #[serde(default)]
    pub types: Map<String, Value>,
    /// Whether nobody has pulled from the scope yet.
    #[serde(default)]
    pub untouched: bool,
    /// What happened before.
    #[serde(default)]
    pub given: Vec<Step>,
    /// What is judged; the expected answer stands beside it.
    pub request: Step,
    #[serde(default)]
    answer: Option<Value>,
    #[serde(default)]
    problem: Option<Value>,
    #[serde(default)]
    rpc: Option<Value>,
    #[serde(default)]
    or: Option<Value>,
    #[serde(default)]
    holds: Vec<String>,
    /// What a pull from the start shows afterwards.
    #[serde(default)]
    pub state: Option<State>,
    /// What happens then.
    #[serde(default)]
    pub then: Vec<Step>,
}

/// What a pull from the start shows.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum State {
    /// The same as before the request.
    Unchanged(Unchanged),
    /// By "type/id": version, clock, record, deleted, changed_at.
    Entities(Map<String, Value>),
}

/// The word.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unchanged {
    /// As before.
    Unchanged,
}

/// Something that happens.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Seconds after the vector's beginning, by the endpoint's clock.
    pub at: Option<f64>,
    /// What the token says, in place of user `ada` and the vector's scope.
    pub claims: Option<Value>,
    /// How the request travels.
    pub http: Option<Http>,
    /// The body, in place of one made of members.
    pub text: Option<String>,
    /// The same where it is not UTF-8.
    pub hex: Option<String>,
    /// Members of the answer to remember, by the name to remember them under.
    pub keep: Map<String, Value>,
    /// The operator's round of forgetting.
    pub maintain: bool,
    /// The operator has the epochs renewed.
    pub renew_epochs: bool,
    /// HTTP 200 with this body.
    pub answer: Option<Value>,
    /// This problem.
    pub problem: Option<Value>,
    /// In the dialect of Supabase's RPC this instead: `{"problem": …}` or `{"answer": …}`.
    pub rpc: Option<Value>,
    /// This problem is right as well.
    pub or: Option<Value>,
    /// Texts that the answer's body must hold, as they are.
    pub holds: Vec<String>,
    /// `push` or `pull` with the device, and members of the body.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

/// What must be answered.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// HTTP 200; every operation took effect.
    Effect,
    /// HTTP 200 with this body.
    Answer(&'a Value),
    /// This problem.
    Problem(&'a Value),
}

impl Step {
    /// What must be answered in this dialect.
    pub fn expected(&self, dialect: Dialect) -> Expected<'_> {
        let rpc = self.rpc.as_ref().filter(|_| dialect == Dialect::Rpc);
        let answer = rpc.map_or(self.answer.as_ref(), |rpc| rpc.get("answer"));
        let problem = rpc.map_or(self.problem.as_ref(), |rpc| rpc.get("problem"));
        match (answer, problem) {
            (_, Some(problem)) => Expected::Problem(problem),
            (Some(answer), None) => Expected::Answer(answer),
            (None, None) => Expected::Effect,
        }
    }
}

impl Vector {
    /// Its steps: those before, the one judged, those after.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.given.iter().chain([&self.request]).chain(&self.then)
    }

    /// What a host must be able to do for it.
    pub fn needs(&self) -> BTreeSet<Ability> {
        let is = |is_needed: bool, ability| is_needed.then_some(ability);
        let any = |of: &dyn Fn(&Step) -> bool| self.steps().any(of);
        [
            is(!self.types.is_empty(), Ability::Types),
            is(self.types.values().any(|given| given.get("schema").is_some()), Ability::Schemas),
            is(any(&|step| step.at.is_some()), Ability::Clock),
            is(any(&|step| step.maintain), Ability::Maintain),
            is(any(&|step| step.renew_epochs), Ability::RenewEpochs),
            is(any(&|step| step.http.is_some()), Ability::Http),
            is(self.shows.iter().any(|id| id == KEEPS_TEXT), Ability::Text),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Its name with its file's.
    pub fn title(&self) -> String {
        format!("{}: {}", self.file, self.name)
    }

    /// The expected answer belongs to the request.
    fn put_together(mut self, file: &str) -> Self {
        self.file = file.to_owned();
        self.request.answer = self.answer.take();
        self.request.problem = self.problem.take();
        self.request.rpc = self.rpc.take();
        self.request.or = self.or.take();
        self.request.holds = std::mem::take(&mut self.holds);
        self
    }
}

/// The folder of the vectors.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contract")
}

/// The files of vectors, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder.join("vectors")).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    Ok(paths)
}

/// Reads all vectors, in the order of their files.
///
/// # Errors
/// The folder cannot be read, or a file is none of vectors.
pub fn load(folder: &Path) -> Result<Vec<Vector>, String> {
    let mut vectors = Vec::new();
    for path in files(folder)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        let file: File = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        vectors.extend(file.vectors.into_iter().map(|vector| vector.put_together(&name)));
    }
    Ok(vectors)
}
