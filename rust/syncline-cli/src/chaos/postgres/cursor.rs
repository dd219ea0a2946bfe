//! The torture of the cursor: eight writers draw versions and commit only after a while, and a reader that follows its cursor every
//! 2 ms must meet every version, in order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use syncline_testkit::postgres::{Cluster, Database, Durability};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use super::report::Outcome;
use super::{Bar, Scene, Slip, elsewhere};
use crate::demo::DemoError;
use crate::demo::team::pause;
use crate::output::thousands;

const SCOPE: &str = "raced";
const NAME: &str = "cursor";
const WRITERS: u64 = 8;
const OPERATIONS: u64 = 100;
/// Between the number and the commit, at most.
const DELAY_MILLIS: u64 = 10;
const GLANCE: Duration = Duration::from_millis(2);
const PAGE: u64 = 1_000;
const SERVE: &str = "SELECT status, body FROM syncline.serve($1, $2, $3)";

/// Versions of a bare sequence, drawn before the lock that nobody then needs: a function, what is in it, and what comes instead.
const BARE_SEQUENCE: [(&str, &str, &str); 3] = [
    ("open_scope", "for update", ""),
    ("write", "p_head + row_number() over (order by o.n)", "nextval('public.versions')"),
    ("write", "set head = p_head + p_changed", "set head = greatest(s.head, currval('public.versions'))"),
];

pub(super) async fn run(scene: &Scene<'_>) -> Result<Outcome, DemoError> {
    let (cluster, database) = elsewhere(|| {
        // Nothing dies here, so nothing has to last.
        let cluster = Cluster::start(Durability::None);
        let database = cluster.database(NAME);
        cluster.sql(NAME, "UPDATE syncline.settings SET scope_claim = 'scope'");
        (cluster, database)
    })
    .await?;
    if scene.slip == Some(Slip::Skip) {
        cluster.sql(NAME, "CREATE SEQUENCE public.versions");
        BARE_SEQUENCE.iter().for_each(|(function, part, instead)| plant(&cluster, NAME, function, part, instead));
    }
    let bar = Bar::new(scene);
    let mut reader = Reader::new(&database).await?;
    let quota = scene.sizes.rows / WRITERS;
    let mut writing = JoinSet::new();
    for number in 0..WRITERS {
        writing.spawn(write(database.clone(), number, quota, reader.epoch.clone(), scene.seed));
    }
    loop {
        while let Some(written) = writing.try_join_next() {
            written.map_err(|error| DemoError::Child(format!("a writer gave up: {error}")))??;
        }
        let are_done = writing.is_empty();
        reader.read().await?;
        if are_done && !reader.has_more {
            break;
        }
        let (seen, skipped) = (thousands(reader.seen), reader.skipped);
        bar.tell(format!("{seen} of {} versions met, {skipped} skipped", thousands(scene.sizes.rows)));
        pause(GLANCE).await;
    }
    let all = quota * WRITERS;
    let stored: u64 = cluster.sql(NAME, "SELECT count(*) FROM syncline.entities").parse().unwrap_or(0);
    let mut breaches = reader.breaches;
    if reader.skipped > 0 || reader.seen != all || stored != all {
        breaches.push(format!(
            "cursor: {all} versions were committed, {stored} are stored, the reader met {} and skipped {}",
            reader.seen, reader.skipped
        ));
    }
    let figures = vec![
        ("versions committed", stored),
        ("pushes", all / OPERATIONS),
        ("looks of the reader", reader.looks),
        ("pages with changes", reader.pages),
        ("versions met in order", reader.seen),
        ("versions skipped", reader.skipped),
    ];
    Ok(Outcome { figures, breaches })
}

/// Puts other text in the place of a part of a function.
fn plant(cluster: &Cluster, database: &str, function: &str, part: &str, instead: &str) {
    cluster.sql(
        database,
        &format!(
            "DO $do$ DECLARE v_text text := pg_get_functiondef('syncline.{function}'::regproc); BEGIN
               IF strpos(v_text, $part${part}$part$) = 0 THEN RAISE 'there is no such part'; END IF;
               EXECUTE replace(v_text, $part${part}$part$, $part${instead}$part$);
             END $do$"
        ),
    );
}

/// A connection, and what keeps it going.
async fn connect(database: &Database) -> Result<(Client, JoinSet<()>), DemoError> {
    let config: Config = database.url().parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    let mut going = JoinSet::new();
    // How it ended, its user hears from the next statement.
    going.spawn(async move { drop(connection.await) });
    Ok((client, going))
}

fn claims(user: &str) -> String {
    json!({ "sub": user, "role": "authenticated", "scope": [SCOPE] }).to_string()
}

fn body(user: &str, more: &Value) -> String {
    let mut body = json!({
        "protocol": 1, "user_id": user, "scope": SCOPE, "device_id": user, "mark": 0, "sent_at": "2026-11-01T00:00:00.000Z",
    });
    more.as_object().into_iter().flatten().for_each(|(name, value)| body[name] = value.clone());
    body.to_string()
}

/// What the endpoint says, if it is a page or verdicts.
async fn ask(client: &Client, path: &str, body: &str, claims: &str) -> Result<Value, DemoError> {
    let row = client.query_one(SERVE, &[&path, &body, &claims]).await?;
    let (status, said): (i32, String) = (row.get(0), row.get(1));
    match status {
        200 => Ok(serde_json::from_str(&said)?),
        _ => Err(DemoError::Child(format!("the database answered a {path} with {status} {said}"))),
    }
}

/// Pushes its quota, and commits each push only after a while.
async fn write(database: Database, number: u64, quota: u64, epoch: String, seed: u64) -> Result<(), DemoError> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
    let (mut client, _going) = connect(&database).await?;
    let name = format!("writer-{number}");
    let claims = claims(&name);
    let mut next = 1;
    while next <= quota {
        let last = quota.min(next + OPERATIONS - 1);
        let operation = |sequence| {
            json!({
                "id": format!("{number}-{sequence}"), "idempotency_key": format!("{number}/{sequence}"), "sequence": sequence,
                "operation": "create", "entity_type": "pin", "entity_id": format!("{number}-{sequence}"),
                "payload": { "n": sequence }, "timestamp": "2026-11-01T00:00:00.000Z",
            })
        };
        let operations: Vec<Value> = (next..=last).map(operation).collect();
        let body = body(&name, &json!({ "epoch": epoch, "operations": operations }));
        let transaction = client.transaction().await?;
        let row = transaction.query_one(SERVE, &[&"push", &body, &claims]).await?;
        let (status, said): (i32, String) = (row.get(0), row.get(1));
        if status != 200 {
            return Err(DemoError::Child(format!("a push was answered with {status} {said}")));
        }
        pause(Duration::from_millis(random.random_range(0..=DELAY_MILLIS))).await;
        transaction.commit().await?;
        next = last + 1;
    }
    Ok(())
}

/// Follows its cursor.
struct Reader {
    client: Client,
    claims: String,
    epoch: String,
    cursor: Value,
    has_more: bool,
    last: u64,
    seen: u64,
    skipped: u64,
    looks: u64,
    pages: u64,
    breaches: Vec<String>,
    _going: JoinSet<()>,
}

impl Reader {
    async fn new(database: &Database) -> Result<Self, DemoError> {
        let (client, going) = connect(database).await?;
        let claims = claims("reader");
        let page = ask(&client, "pull", &body("reader", &json!({ "limit": PAGE })), &claims).await?;
        Ok(Self {
            client,
            claims,
            epoch: page["epoch"].as_str().unwrap_or_default().to_owned(),
            cursor: page["cursor"].clone(),
            has_more: false,
            last: 0,
            seen: 0,
            skipped: 0,
            looks: 0,
            pages: 0,
            breaches: Vec::new(),
            _going: going,
        })
    }

    async fn read(&mut self) -> Result<(), DemoError> {
        let members = json!({ "epoch": self.epoch, "cursor": self.cursor, "limit": PAGE });
        let page = ask(&self.client, "pull", &body("reader", &members), &self.claims).await?;
        self.looks += 1;
        let changes = page["changes"].as_array().map_or(&[][..], Vec::as_slice);
        self.pages += u64::from(!changes.is_empty());
        for change in changes {
            let version = change["version"].as_u64().unwrap_or(0);
            if version <= self.last {
                self.breaches.push(format!("cursor: version {version} came after {}", self.last));
            }
            self.skipped += version.saturating_sub(self.last + 1);
            self.last = version;
            self.seen += 1;
        }
        if page["reset"] != false {
            self.breaches.push(format!("cursor: the reader was reset after version {}", self.last));
        }
        self.cursor = page["cursor"].clone();
        self.has_more = page["has_more"] == true;
        Ok(())
    }
}
