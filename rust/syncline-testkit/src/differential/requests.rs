//! Drawing what a device sends.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline_protocol::Timestamp;

use super::file::{Clock, File, Lane, Operation};
use super::values::{payload, pick};

pub(super) const IDS: &[&str] = &["1", "2", "ä"];
/// Operations that a push has, at most, but for what it repeats.
const MOST_NEW: usize = 7;

/// What a push says of its device.
#[derive(Default)]
pub(super) struct Head {
    epoch: Option<usize>,
    mark: u64,
    cursor: Option<usize>,
    pub(super) dry_run: bool,
    forgotten_through: u64,
}

impl Head {
    /// As it is.
    pub(super) fn of(file: &File) -> Self {
        Self { epoch: file.epoch, mark: file.mark, ..Self::default() }
    }

    /// The same, judged only.
    pub(super) fn dry(file: &File) -> Self {
        Self { dry_run: true, ..Self::of(file) }
    }
}

/// Mostly as it is; sometimes as after a restore, a lost answer, an error.
pub(super) fn head(file: &File, epochs: usize, cursors: usize, random: &mut StdRng) -> Head {
    let epoch = match random.random_range(0..40) {
        0 => None,
        1 => Some(random.random_range(0..epochs + 1)),
        _ => file.epoch,
    };
    let mark = match random.random_range(0..40) {
        0 => file.mark + random.random_range(1..3),
        1 => file.mark.saturating_sub(1),
        _ => file.mark,
    };
    let cursor = match random.random_range(0..12) {
        0 => None,
        1 => Some(random.random_range(0..cursors + 1)),
        _ => file.cursors.last().map(|(number, _)| *number),
    };
    let forgotten_through = if random.random_range(0..15) == 0 { file.next.saturating_sub(1) / 2 } else { 0 };
    Head { epoch, mark, cursor, dry_run: random.random_range(0..10) == 0, forgotten_through }
}

/// The body of a push.
pub(super) fn push(file: &File, head: &Head, operations: &[Operation], now: Timestamp, scope: &str) -> String {
    let lowest = operations.iter().map(|operation| operation.sequence).min().unwrap_or(u64::MAX);
    let forgotten_through = head.forgotten_through.min(lowest.saturating_sub(1));
    let body = json!({
        "protocol": 1, "user_id": file.user, "scope": scope, "device_id": file.device,
        "epoch": head.epoch.map(|number| format!("$e{number}")), "mark": head.mark,
        "cursor": head.cursor.map(|number| format!("$c{number}")), "sent_at": now, "dry_run": head.dry_run,
        "forgotten_through": forgotten_through,
    });
    let mut text = body.to_string();
    text.pop();
    let operations: Vec<String> = operations.iter().map(Operation::text).collect();
    format!("{text},\"operations\":[{}]}}", operations.join(","))
}

/// New operations, and old ones again. All of a request's that is not to be refused.
pub(super) fn operations(file: &mut File, types: &[&str], now: Timestamp, random: &mut StdRng) -> Vec<Operation> {
    let mut operations = repeated(file, random);
    let mut transaction: Option<(String, bool)> = None;
    for number in 0..random.random_range(0..=MOST_NEW) {
        transaction = match random.random_range(0..6) {
            0 => Some((format!("tx-{}-{number}", file.next), random.random_range(0..8) == 0)),
            1 | 2 => None,
            _ => transaction,
        };
        let mut operation = new(file, &operations, types, now, random);
        if let Some((id, void)) = &transaction {
            operation.transaction = Some(id.clone());
            operation.void = *void;
        }
        operations.push(operation);
    }
    operations
}

/// Some of what was sent, unchanged, or under a new key, or with other content, or withdrawn.
fn repeated(file: &File, random: &mut StdRng) -> Vec<Operation> {
    let mut chosen: Vec<Operation> = Vec::new();
    if random.random_range(0..3) > 0 {
        return chosen;
    }
    let rarity = random.random_range(1..5);
    for sent in file.sent.iter().rev().take(8) {
        let is_there = chosen.iter().any(|it| it.sequence == sent.sequence || it.id == sent.id || it.key == sent.key);
        if is_there || random.random_range(0..rarity) > 0 {
            continue;
        }
        let mut again = Operation { transaction: None, depends_on: Vec::new(), ..sent.clone() };
        match random.random_range(0..12) {
            0 => {
                again.key = format!("{}#{}", again.key.split('#').next().unwrap_or_default(), random.random_range(2..5))
            }
            1 => again.payload = Some(payload(random, 10)),
            2 => again.void = true,
            3 => again.lane.1 = "other".to_owned(),
            _ => {}
        }
        if again.key != sent.key {
            again.base = file.seen.get(&again.lane).cloned().unwrap_or_default();
            again.base.retain(|device, sequence| *device != file.device || *sequence < again.sequence);
        }
        let is_known = |it: &Operation| it.key == again.key;
        if !chosen.iter().any(is_known) {
            chosen.push(again);
        }
    }
    chosen.sort_by_key(|operation| operation.sequence);
    chosen
}

fn new(file: &mut File, before: &[Operation], types: &[&str], now: Timestamp, random: &mut StdRng) -> Operation {
    let sequence = file.next;
    file.next += if random.random_range(0..20) == 0 { 3 } else { 1 };
    let lane: Lane = ((*pick(random, types)).to_owned(), (*pick(random, IDS)).to_owned());
    let known = file.seen.get(&lane).cloned().unwrap_or_default();
    let is_new = known.is_empty();
    let kind = match random.random_range(0..20) {
        0..3 => "delete",
        3..6 => "create",
        _ if is_new && random.random_range(0..5) > 0 => "create",
        _ => "update",
    };
    let base = base(file, &lane, known, before, random);
    // Whole seconds, so that two often name the same moment.
    let seconds = random.random_range(-40..80);
    let timestamp = Timestamp::from_millis(now.millis() / 1000 * 1000 + seconds * 1000).to_string();
    let wants_payload = kind != "delete" || random.random_range(0..10) == 0;
    let depends_on = match (before.last(), random.random_range(0..8)) {
        (Some(_), 0) => vec![pick(random, before).id.clone()],
        (_, 1) => vec!["elsewhere".to_owned()],
        _ => Vec::new(),
    };
    Operation {
        // Copies of a file make ids of their own, and now and then the same key; so do devices of other scopes.
        id: format!("{}-{sequence}-{}", file.device, random.random_range(0..1_000_000)),
        key: format!("key-{}-{sequence}-{}", file.device, random.random_range(0..6)),
        sequence,
        kind,
        payload: wants_payload.then(|| payload(random, 14)),
        before: (random.random_range(0..4) == 0).then(|| payload(random, 6)).filter(|text| text.starts_with('{')),
        base,
        timestamp,
        transaction: None,
        depends_on,
        void: random.random_range(0..25) == 0,
        conflict_rule: *pick(
            random,
            &[
                None,
                None,
                None,
                None,
                Some("server_wins"),
                Some("client_wins"),
                Some("manual"),
                Some("last_writer_wins"),
            ],
        ),
        delete_rule: *pick(random, &[None, None, None, Some("delete_wins"), Some("update_wins")]),
        lane,
    }
}

/// What the device has seen, with what goes before in the lane; or less than that.
fn base(file: &File, lane: &Lane, known: Clock, before: &[Operation], random: &mut StdRng) -> Clock {
    let mut base = known;
    match random.random_range(0..14) {
        0 => base.clear(),
        1 => base.retain(|device, _| *device == file.device),
        2 => base.values_mut().for_each(|sequence| *sequence = sequence.saturating_sub(1)),
        3 => drop(base.insert("Tablet".to_owned(), 99)),
        _ => {}
    }
    for earlier in before.iter().filter(|earlier| earlier.lane == *lane) {
        base.insert(file.device.clone(), earlier.sequence);
    }
    base
}

/// The body with one fault, and who sends it.
pub(super) fn spoil(body: &str, user: &'static str, random: &mut StdRng) -> (String, &'static str) {
    let other = if user == "ada" { "bob" } else { "ada" };
    let choice = random.random_range(0..12);
    // What stands in the middle of raw text is spoiled in the text.
    match choice {
        0 => return (body.to_owned(), other),
        1 => return (body.chars().take(body.chars().count() / 2).collect(), user),
        2 => return (format!("[{body}]"), user),
        3 => return (body.replacen("\"protocol\":1", "\"protocol\":3", 1), user),
        _ => {}
    }
    let members = [
        ("mark", json!(9_007_199_254_740_992_u64)),
        ("mark", json!(-1)),
        ("device_id", json!("server")),
        ("device_id", json!("")),
        ("device_id", json!("x".repeat(129))),
        ("scope", json!("elsewhere")),
        ("sent_at", json!("noon")),
        ("dry_run", json!("no")),
        ("forgotten_through", json!(1.5)),
        ("operations", json!({})),
        ("operations", json!([7])),
        ("epoch", json!(7)),
    ];
    let (name, value): &(&str, Value) = pick(random, &members);
    // Only the head: a payload's numbers are not to be read and written.
    let Some((head, operations)) = body.split_once(",\"operations\":") else { return (body.to_owned(), user) };
    let mut head: Value = serde_json::from_str(&format!("{head}}}")).unwrap_or_default();
    if *name == "operations" {
        head["operations"] = value.clone();
        return (head.to_string(), user);
    }
    head[*name] = value.clone();
    let mut text = head.to_string();
    text.pop();
    (format!("{text},\"operations\":{operations}"), user)
}
