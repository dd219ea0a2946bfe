//! The real endpoint with a small history, the same for every input, and the reference model beside it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use rusqlite::{Connection, OpenFlags};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::endpoint::types::Types;
use syncline_server::{Claims, Embedded, Endpoint as _, EndpointLimits, Random, Request, SqliteStore, contract};
use syncline_testkit::disk::Disk;
use syncline_testkit::model::{Limits, Model, Token, Types as ModelTypes};
use syncline_testkit::read_state;

/// Of the golden exchanges: their requests are good here.
pub const USER: &str = "ada";
/// The scope that the token opens.
pub const SCOPE: &str = "team";
/// The scope's epoch.
pub const EPOCH: &str = "019de368-f600-7a59-803b-8554dfd7bc4f";
const NOW_MS: i64 = 1_777_636_800_000;
const FILE: &str = "server.db";

/// The endpoint, as it is for one input.
pub struct Endpoint {
    embedded: Embedded<SqliteStore>,
    model: Model,
    /// To look into the endpoint's file.
    file: Connection,
    version: i64,
    random: Counting,
    disk: Disk,
}

/// Gives [`EPOCH`] to who asks first, and what was never given before to everybody else.
#[derive(Clone)]
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        let first = [0x7a, 0x59, 0x80, 0x3b, 0x85, 0x54, 0xdf, 0xd7, 0xbc, 0x4f];
        let given = if self.0 == 0 {
            first
        } else {
            [self.0.to_be_bytes().as_slice(), &[0; 2]].concat().try_into().expect("ten bytes")
        };
        self.0 += 1;
        bytes.iter_mut().zip(given.into_iter().cycle()).for_each(|(byte, given)| *byte = given);
    }
}

/// What every input begins with, read once.
struct Template {
    disk: Disk,
    model: Model,
    random: Counting,
    /// The untouched endpoint that the input before left behind.
    clean: Option<Endpoint>,
}

thread_local! {
    static TEMPLATE: RefCell<Option<Template>> = const { RefCell::new(None) };
}

/// Lends an endpoint that has lived through [`history`], and no more.
pub fn with(work: impl FnOnce(&mut Endpoint)) {
    TEMPLATE.with_borrow_mut(|template| {
        let template = template.get_or_insert_with(Template::live);
        let mut endpoint = template.clean.take().unwrap_or_else(|| template.copy());
        let before = endpoint.version;
        work(&mut endpoint);
        if endpoint.version == before {
            // The file is as it was; what was said and not written, as in a dry run, is forgotten.
            (endpoint.random, endpoint.model) = (template.random.clone(), template.model.clone());
            template.clean = Some(endpoint);
        }
    });
}

impl Template {
    fn live() -> Self {
        let disk = Disk::new(0);
        let mut endpoint = Endpoint::open(disk.clone(), Model::new(ModelTypes::new(&types()), limits()), Counting(0));
        for (route, body) in history() {
            let (status, said) = endpoint.exchange(route, body.to_string().as_bytes());
            assert_eq!(status, 200, "{said}");
        }
        let Endpoint { model, random, .. } = endpoint;
        Self { disk, model, random, clean: None }
    }

    fn copy(&self) -> Endpoint {
        let disk = Disk::new(0);
        self.disk.copy_to(FILE, &disk, FILE);
        Endpoint::open(disk, self.model.clone(), self.random.clone())
    }
}

impl Endpoint {
    fn open(disk: Disk, model: Model, random: Counting) -> Self {
        let path = disk.process().path(FILE);
        let store = SqliteStore::open(&path, Some(Disk::VFS)).expect("the endpoint's file opens");
        let types = serde_json::from_value(types()).expect("a configuration");
        let embedded = Embedded::new(store, Types::new(types).expect("types"), EndpointLimits::default());
        let file = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), Disk::VFS).expect("the file opens");
        let version = data_version(&file);
        Self { embedded, model, file, version, random, disk }
    }

    /// Asks, and judges the answer: by the OpenAPI document, by the model, and by what the file holds.
    ///
    /// # Panics
    /// If the answer is not as it must be: that is what is looked for.
    pub fn exchange(&mut self, route: Route, body: &[u8]) -> (u16, Value) {
        let (request, path) = match route {
            Route::Push => (Request::Push(body), "/v1/push"),
            Route::Pull => (Request::Pull(body), "/v1/pull"),
        };
        let scopes: BTreeSet<String> = [SCOPE.to_owned()].into();
        let claims = Claims::new(USER.to_owned(), scopes);
        let now = Timestamp::from_millis(NOW_MS);
        let answer = self.embedded.handle(request, &claims, now, &mut self.random);
        let said: Value = serde_json::from_str(&answer.body).expect("answers are JSON");
        contract::validate_answer(path, answer.status, &said).unwrap_or_else(|how| panic!("{said}: {how:?}"));
        assert!(!matches!(said["code"].as_str(), Some("internal" | "unavailable")), "{said}");

        let before = std::mem::replace(&mut self.version, data_version(&self.file));
        let written = self.version != before;
        assert!(answer.status == 200 || !written || said["code"] == "server_behind", "a refusal was written: {said}");
        if is_for_the_model(body) {
            let token = Token { user_id: USER, scopes: &claims.scopes };
            self.model
                .judge(route, body, token, now, answer.status, &said)
                .unwrap_or_else(|how| panic!("{said}: {how}"));
            if written {
                let stored = read_state(&self.file).expect("the file can be read");
                self.model.compare(&stored).expect("the file holds what the model does");
            }
        }
        (answer.status, said)
    }

    /// What the disk has seen.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

/// The model knows the cursors that were given out, and does not judge a body that names a member twice.
fn is_for_the_model(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["cursor"].is_null())
        && serde_json::from_slice::<Unique>(body).is_ok()
}

/// JSON without two members of one name.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without two members of one name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, Self)) = members.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(Error::custom("a member is named twice"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// Differs from before once another connection has committed something.
fn data_version(file: &Connection) -> i64 {
    file.pragma_query_value(None, "data_version", |row| row.get(0)).expect("the file can be read")
}

fn limits() -> Limits {
    let EndpointLimits { max_operations, max_bytes, max_payload_bytes } = EndpointLimits::default();
    Limits { max_operations, max_bytes, max_payload_bytes }
}

/// Rules and a schema of the operator's, for some types.
fn types() -> Value {
    json!({
        "form": { "delete_rule": "delete_wins", "schema": { "properties": { "title": { "maxLength": 5 } } } },
        "note": { "conflict_rule": "manual" },
    })
}

/// A pull, and a push of another device than the seeds are of: records, a tombstone, a transaction.
fn history() -> Vec<(Route, Value)> {
    let operation = |sequence: u64, kind: &str, entity: (&str, &str), payload: Value| {
        let mut operation = json!({
            "id": format!("Z{sequence}"), "idempotency_key": format!("Z-{sequence}"), "sequence": sequence, "operation": kind,
            "entity_type": entity.0, "entity_id": entity.1, "timestamp": "2026-05-01T12:00:00.000Z",
        });
        if !payload.is_null() {
            operation["payload"] = payload;
        }
        operation
    };
    let pull = json!({
        "protocol": 1, "user_id": USER, "scope": SCOPE, "device_id": "Z", "epoch": null, "mark": 0, "cursor": null,
        "entity_types": null, "limit": 1000,
    });
    let push = json!({
        "protocol": 1, "user_id": USER, "scope": SCOPE, "device_id": "Z", "epoch": EPOCH, "mark": 0,
        "sent_at": "2026-05-01T12:00:00.000Z", "operations": [
            operation(1, "create", ("pin", "e1"), json!({"f": 1, "list": [1, {"a": null}]})),
            operation(2, "create", ("form", "f1"), json!({"title": "Leak"})),
            operation(3, "create", ("note", "n1"), json!({"text": "ü"})),
            operation(4, "create", ("pin", "e2"), json!({"f": 2})),
            operation(5, "delete", ("pin", "e2"), Value::Null),
        ],
    });
    vec![(Route::Pull, pull), (Route::Push, push)]
}
