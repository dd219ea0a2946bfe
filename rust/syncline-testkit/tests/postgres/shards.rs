//! Scopes on two servers behind a router (`supabase/scaling/plproxy.sql`): every call goes to one of them, and one that is down takes
//! only its own scopes along.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::{Claims, Clock as _, SystemClock};
use syncline_testkit::contract::{Ability, Answered, Host, HostError, Outcome, PostgresHost, Sent, folder, load, run};
use syncline_testkit::postgres::{Cluster, Durability};

/// A router and its shards.
struct Shards {
    router: Cluster,
    shards: [Cluster; 2],
}

impl Shards {
    /// None where this Postgres comes without PL/Proxy and was chosen by hand.
    fn start() -> Option<Self> {
        let router = Cluster::start(Durability::None);
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'plproxy'";
        if router.sql("postgres", available) == "0" {
            assert!(std::env::var_os("SYNCLINE_PG_BIN").is_some(), "PL/Proxy is missing: scripts/provide plproxy");
            return None;
        }
        // One is stopped as a power failure would.
        let shards = [0, 1].map(|_| Cluster::start(Durability::Full));
        drop([&router, &shards[0], &shards[1]].map(|cluster| cluster.database("app")));
        let place = |number: usize, shard: &Cluster| {
            format!("\\set shard_{number} 'host={} dbname=app'\n", shard.socket().display())
        };
        let script = include_str!("../../../../supabase/scaling/plproxy.sql");
        let places = place(0, &shards[0]) + &place(1, &shards[1]);
        router.sql("app", &format!("{places}\\set user postgres\n{script}"));
        Some(Self { router, shards })
    }

    fn host(&self) -> Routed {
        Routed(PostgresHost::new(&self.router.existing("app")).unwrap())
    }

    /// The scopes that a shard has.
    fn scopes(&self, shard: usize) -> BTreeSet<String> {
        let found = self.shards[shard].sql("app", "SELECT scope FROM syncline.scopes");
        found.lines().map(str::to_owned).collect()
    }

    /// The shard that the router takes a scope for.
    fn shard_of(&self, scope: &str) -> usize {
        self.router.sql("app", &format!("SELECT syncline.shard_of('{scope}') & 1")).parse().unwrap()
    }
}

/// The endpoint behind the router. A clock that is given to the router does not reach the shards.
struct Routed(PostgresHost);

impl Host for Routed {
    fn name(&self) -> &str {
        "routed"
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        let mut abilities = self.0.abilities();
        abilities.remove(&Ability::Clock);
        abilities
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.0.reset(types)
    }

    fn set_clock(&mut self, _: Timestamp) -> Result<Timestamp, HostError> {
        Ok(SystemClock.now())
    }

    fn handle(&mut self, sent: Sent<'_>) -> Result<Answered, HostError> {
        self.0.handle(sent)
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.0.maintain(scope)
    }

    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError> {
        self.0.renew_epochs(scope)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        self.0.ledger(scope)
    }
}

#[test]
fn every_vector_holds_behind_a_router_and_every_call_goes_to_one_shard() {
    let Some(all) = Shards::start() else { return };
    let mut failed = Vec::new();
    let outcomes = run(&mut all.host(), &load(&folder()).unwrap(), |vector, outcome| {
        if let Outcome::Failed(why) = outcome {
            failed.push(format!("{}\n    {why}", vector.title()));
        }
    });
    assert!(failed.is_empty(), "{} of {} vectors fail:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
    assert!(outcomes.iter().filter(|outcome| **outcome == Outcome::Passed).count() >= 150);
    // A pull or push that went astray would have made its scope there.
    let (first, second) = (all.scopes(0), all.scopes(1));
    assert!(first.len() > 50 && second.len() > 50, "{} and {}", first.len(), second.len());
    assert!(first.is_disjoint(&second));
    for (shard, scopes) in [(0, &first), (1, &second)] {
        assert!(scopes.iter().take(20).all(|scope| all.shard_of(scope) == shard));
    }
    assert_eq!(all.router.sql("app", "SELECT count(*) FROM syncline.scopes"), "0");
    // What an operator does for all of them reaches both.
    let renewed = all.router.sql("app", "SELECT syncline.renew_epochs()");
    assert_eq!(renewed, (first.len() + second.len()).to_string());
}

fn ask(host: &mut Routed, route: Route, scope: &str, members: Value) -> (u16, Value) {
    let mut body = json!({ "protocol": 1, "user_id": "ada", "scope": scope, "device_id": "d", "limit": 10,
        "sent_at": "2026-05-01T12:00:00Z" });
    members.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    let body = body.to_string();
    let claims = Claims::new("ada".into(), [scope.to_owned()].into());
    let answered = host.handle(Sent { route, body: body.as_bytes(), claims: &claims, http: None }).unwrap();
    (answered.status, serde_json::from_slice(&answered.body).unwrap())
}

fn push(host: &mut Routed, scope: &str, epoch: &Value, sequence: u64) -> (u16, Value) {
    let operation = json!({ "id": format!("o{sequence}"), "idempotency_key": format!("k{sequence}"), "sequence": sequence,
        "operation": "create", "entity_type": "pin", "entity_id": format!("e{sequence}"), "payload": {},
        "timestamp": "2026-05-01T12:00:00Z" });
    ask(host, Route::Push, scope, json!({ "epoch": epoch, "operations": [operation] }))
}

#[test]
fn with_one_shard_down_the_scopes_of_the_other_go_on() {
    let Some(mut all) = Shards::start() else { return };
    let mut host = all.host();
    let scopes: Vec<String> = (0..8).map(|number| format!("team-{number}")).collect();
    let (down, up): (Vec<_>, Vec<_>) = scopes.iter().partition(|scope| all.shard_of(scope) == 1);
    assert!(down.len() >= 2 && up.len() >= 2, "{down:?} {up:?}");
    let epochs: Vec<_> =
        scopes.iter().map(|scope| ask(&mut host, Route::Pull, scope, json!({})).1["epoch"].clone()).collect();
    let epoch = |scope: &String| epochs[scopes.iter().position(|one| one == scope).unwrap()].clone();
    scopes.iter().for_each(|scope| assert_eq!(push(&mut host, scope, &epoch(scope), 1).0, 200));

    all.shards[1].stop();
    for scope in &up {
        assert_eq!(push(&mut host, scope, &epoch(scope), 2).0, 200);
        let (status, page) = ask(&mut host, Route::Pull, scope, json!({}));
        assert_eq!((status, page["changes"].as_array().unwrap().len()), (200, 2));
    }
    for scope in &down {
        let (status, problem) = push(&mut host, scope, &epoch(scope), 2);
        assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
        assert_eq!(ask(&mut host, Route::Pull, scope, json!({})).0, 503);
    }

    all.shards[1].resume();
    for scope in &down {
        let (_, answer) = (0..5)
            .map(|_| push(&mut host, scope, &epoch(scope), 2))
            .find(|(status, _)| *status == 200)
            .expect("it is back");
        assert_eq!(answer["version"], 2, "{answer}");
    }
}
