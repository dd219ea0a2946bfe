//! Several `syncline serve --postgres` behind one database, any of which dies at any moment: the endpoint keeps nothing of its own.
//! Run by the part `postgres` of `scripts/test`.
#![expect(clippy::disallowed_methods, reason = "processes die after real time")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::auth::{Secret, mint};
use syncline_server::{Clock as _, SystemClock};
use syncline_testkit::contract::{
    Ability, Answered, Host, HostError, HttpHost, Outcome, Place, PostgresHost, Sent, folder, load, run,
};
use syncline_testkit::postgres::{Cluster, Database, Durability};
use syncline_testkit::{files, server_copy};

use super::{syncline, text};

const SECRET: &str = "a secret of the fleet, 32 bytes or so";
const AUDIENCE: &str = "authenticated";
const MEMBERS: usize = 3;
const EXPIRY: Timestamp = Timestamp::from_millis(4_000_000_000_000);

/// A process, and where it listens.
struct Member {
    child: Child,
    address: String,
}

impl Member {
    /// Starts one and waits until it listens: at `address`, if it had one before.
    fn start(folder: &Path, url: &str, address: Option<&str>) -> Self {
        let listen = address.unwrap_or("127.0.0.1:0");
        let (secret, limits) = (folder.join("secret"), folder.join("limits.json"));
        std::fs::write(&secret, SECRET).unwrap();
        // How often somebody may ask is no matter of the contract.
        std::fs::write(&limits, r#"{"limits": {"requests_per_minute": 1000000, "burst": 1000000}}"#).unwrap();
        let words = ["serve", "--json", "--listen", listen, "--postgres", url, "--postgres-connections", "4"];
        let more = ["--config", text(&limits), "--jwt-secret-file", text(&secret), "--jwt-audience", AUDIENCE];
        let mut command = syncline(words.into_iter().chain(more));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("it does not start: {line}"));
        Self { child, address: ready["listening"].as_str().unwrap().to_owned() }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fleet as an endpoint under test: each request goes to one member, and now and then one dies while it is under way.
struct Fleet {
    members: Vec<(Member, HttpHost)>,
    operator: PostgresHost,
    folder: tempfile::TempDir,
    database: Database,
    random: StdRng,
    killed: usize,
}

impl Fleet {
    fn start(database: &Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let members = (0..MEMBERS).map(|_| {
            let member = Member::start(folder.path(), database.url(), None);
            let http = http(&member, database);
            (member, http)
        });
        Self {
            members: members.collect(),
            operator: PostgresHost::new(database).unwrap(),
            folder,
            database: database.clone(),
            random: StdRng::seed_from_u64(6),
            killed: 0,
        }
    }

    /// Another process in the place of one that died.
    fn replace(&mut self, at: usize) {
        let address = self.members[at].0.address.clone();
        let member = Member::start(self.folder.path(), self.database.url(), Some(&address));
        // Connections of before are of no use.
        let http = http(&member, &self.database);
        self.members[at] = (member, http);
        self.killed += 1;
    }
}

fn http(member: &Member, database: &Database) -> HttpHost {
    let place = Place::Edge { url: format!("http://{}", member.address) };
    HttpHost::new(place, SECRET, PostgresHost::new(database).unwrap(), || SystemClock.now()).unwrap()
}

/// Whether a request may be sent again without its answer being another one.
fn may_repeat(sent: &Sent<'_>) -> bool {
    sent.route == Route::Pull || String::from_utf8_lossy(sent.body).contains("\"dry_run\":true")
}

impl Host for Fleet {
    fn name(&self) -> &str {
        "fleet"
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        self.members[0].1.abilities()
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.operator.reset(types)
    }

    fn set_clock(&mut self, wanted: Timestamp) -> Result<Timestamp, HostError> {
        self.members[0].1.set_clock(wanted)
    }

    fn handle(&mut self, sent: Sent<'_>) -> Result<Answered, HostError> {
        let at = self.random.random_range(0..MEMBERS);
        let victim = self.random.random_range(0..MEMBERS);
        // A push whose answer died with its process would be told `already_processed`: the other test has those.
        if self.random.random_range(0..10) > 0 || (victim == at && !may_repeat(&sent)) {
            return self.members[at].1.handle(sent);
        }
        let delay = Duration::from_micros(self.random.random_range(0..4_000));
        let (mut dying, mut asked) = (None, None);
        for (number, (member, http)) in self.members.iter_mut().enumerate() {
            dying = if number == victim { Some(member) } else { dying };
            asked = if number == at { Some(http) } else { asked };
        }
        let (dying, asked) = (dying.unwrap(), asked.unwrap());
        let answer = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(delay);
                dying.kill();
            });
            asked.handle(sent)
        });
        self.replace(victim);
        match answer {
            Err(_) if victim == at => self.members[(at + 1) % MEMBERS].1.handle(sent),
            answer => answer,
        }
    }

    fn scope(&self, number: u64) -> String {
        format!("fleet-{number}")
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.operator.maintain(scope)
    }

    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError> {
        self.operator.renew_epochs(scope)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        self.operator.ledger(scope)
    }
}

#[test]
fn every_vector_holds_while_processes_die() {
    let cluster = Cluster::start(Durability::None);
    let mut fleet = Fleet::start(&cluster.database("fleet"));
    let mut failed = Vec::new();
    let outcomes = run(&mut fleet, &load(&folder()).unwrap(), |vector, outcome| {
        if let Outcome::Failed(why) = outcome {
            failed.push(format!("{}\n    {why}", vector.title()));
        }
    });
    assert!(failed.is_empty(), "{} of {} vectors fail:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
    assert!(outcomes.iter().filter(|outcome| **outcome == Outcome::Passed).count() >= 150);
    assert!(fleet.killed >= 30, "only {} processes died", fleet.killed);
}

const WRITERS: usize = 6;
const PUSHES: usize = 25;
const BATCH: usize = 4;

/// Sends a request to whoever listens there. None: no whole answer came.
fn ask(address: &str, path: &str, user: &str, scope: &str, body: &Value) -> Option<(u16, Value)> {
    let (body, token) = (body.to_string(), mint(&Secret::new(SECRET), user, &[scope], AUDIENCE, EXPIRY));
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

/// A device that sends each push until it was answered, to one process after the other.
struct Device<'f> {
    addresses: &'f [String],
    name: String,
    scope: String,
    random: StdRng,
    again: &'f AtomicUsize,
}

impl Device<'_> {
    fn send(&mut self, path: &str, members: &Value) -> Value {
        let mut body = json!({ "protocol": 1, "user_id": self.name, "scope": self.scope, "device_id": self.name });
        members.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        for attempt in 0..200 {
            let address = &self.addresses[self.random.random_range(0..self.addresses.len())];
            match ask(address, path, &self.name, &self.scope, &body) {
                Some((200, answer)) => return answer,
                Some((503, _)) | None => thread::sleep(Duration::from_millis(5 + attempt)),
                Some((status, answer)) => panic!("HTTP {status} {answer}"),
            }
        }
        panic!("nobody answers");
    }

    /// Creates in the first push, changes of the same records in the others.
    fn live(&mut self) {
        let epoch = self.send("/v1/pull", &json!({ "limit": 1 }))["epoch"].clone();
        for push in 0..PUSHES {
            let operations: Vec<_> = (0..BATCH).map(|at| self.operation(push, at)).collect();
            let body = json!({ "epoch": epoch, "sent_at": "2026-05-01T12:00:00Z", "operations": operations });
            let answer = self.send("/v1/push", &body);
            for result in answer["results"].as_array().unwrap() {
                // Told of records above a cursor that it does not send: applied now, or by the push whose answer died.
                let is_good = result["status"] == "applied"
                    || result["status"] == "already_processed" && result["first"] == "applied";
                assert!(is_good, "{result}");
                self.again.fetch_add(usize::from(result["status"] == "already_processed"), Ordering::Relaxed);
            }
        }
    }

    fn operation(&self, push: usize, at: usize) -> Value {
        let (name, sequence) = (&self.name, push * BATCH + at + 1);
        let base = if push == 0 { json!({}) } else { json!({ name: sequence - BATCH }) };
        json!({ "id": format!("{name}-{sequence}"), "idempotency_key": format!("{name}/{sequence}"), "sequence": sequence,
            "operation": if push == 0 { "create" } else { "update" }, "entity_type": "pin", "entity_id": format!("{name}-{at}"),
            "base_clock": base, "payload": { "n": sequence }, "timestamp": "2026-05-01T12:00:00Z" })
    }
}

/// Nothing that was acknowledged is lost, and nothing is done twice, whoever dies in the middle of it.
#[test]
fn nothing_is_lost_or_doubled_while_processes_die() {
    let cluster = Cluster::start(Durability::None);
    let database = cluster.database("dying");
    let folder = tempfile::tempdir().unwrap();
    let members: Vec<_> =
        (0..MEMBERS).map(|_| Mutex::new(Member::start(folder.path(), database.url(), None))).collect();
    let addresses: Vec<_> = members.iter().map(|member| member.lock().unwrap().address.clone()).collect();
    let (again, is_over, killed) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(7);
            while !is_over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(random.random_range(0..40)));
                let at = random.random_range(0..MEMBERS);
                let mut member = members[at].lock().unwrap();
                member.kill();
                *member = Member::start(folder.path(), database.url(), Some(&addresses[at]));
                killed.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (name, random) = (format!("w{writer}"), StdRng::seed_from_u64(writer as u64));
                let scope_name = format!("team-{}", writer % 2);
                let mut device = Device { addresses: &addresses, name, scope: scope_name, random, again: &again };
                scope.spawn(move || device.live())
            })
            .collect();
        let lived: Vec<_> = writers.into_iter().map(|writer| writer.join().is_ok()).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(lived.iter().all(|lived| *lived));
    });
    let (each, killed) = (WRITERS / 2 * PUSHES * BATCH, killed.into_inner());
    assert!(killed >= 10, "only {killed} processes died");
    // Every key once and applied; as many versions as operations; every record as the last write left it.
    let found = cluster.sql(
        "dying",
        "SELECT s.scope, s.head, count(*), count(DISTINCT o.idempotency_key), bool_and(o.verdict = 'applied'),
           (SELECT max(e.version) FROM syncline.entities e WHERE e.scope = s.scope),
           (SELECT count(*) FROM syncline.entities e WHERE e.scope = s.scope),
           (SELECT min((e.payload ->> 'n')::int) FROM syncline.entities e WHERE e.scope = s.scope)
         FROM syncline.scopes s JOIN syncline.operations o USING (scope) GROUP BY s.scope ORDER BY 1",
    );
    let (records, last) = (WRITERS / 2 * BATCH, (PUSHES - 1) * BATCH + 1);
    let expected = |scope: &str| format!("{scope}|{each}|{each}|{each}|t|{each}|{records}|{last}");
    assert_eq!(found, format!("{}\n{}", expected("team-0"), expected("team-1")), "{again:?} were sent again");
    let left = folder.path().join("left.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server_copy::copy(&database, &left)).unwrap();
    assert_eq!(files::judge(&left, &BTreeSet::new(), &mut []).unwrap(), Vec::<String>::new());
}
