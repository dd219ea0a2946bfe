//! Slips planted in the SQL, each with a vector that catches it: a test that cannot fail proves nothing. Random streams notice them too.
#![expect(clippy::print_stdout, reason = "which slip, and by what it was noticed")]

use syncline_testkit::contract::{EmbeddedHost, Host, Outcome, PostgresHost, folder, load, run_one};
use syncline_testkit::differential::{self, Ended};

/// How many streams may be needed to notice one.
const STREAMS: u64 = 150;

/// A function, a part of it, what stands there instead, and the vector that is there to catch it.
const SLIPS: [(&str, &str, &str, &str); 24] = [
    (
        "is_later",
        "collate \"C\") > (",
        "collate \"C\") < (",
        "41-fields: a field that was never set counts as set by the create: unseen, it conflicts",
    ),
    (
        "judge_patch",
        "syncline.same_value(s.payload -> f.key, f.value)",
        "false",
        "41-fields: an equal value is no conflict, and the later write stays as its dot",
    ),
    (
        "judge_patch",
        "if syncline.is_later(p_write, v_setter) then",
        "if true then",
        "41-fields: an equal value that is earlier leaves the dot, and nothing has changed",
    ),
    (
        "judge_patch",
        "when 'server_wins' then 'theirs'",
        "when 'server_wins' then 'ours'",
        "42-conflicts: server_wins keeps theirs, although ours is later",
    ),
    (
        "judge_delete",
        "where not syncline.covers(o.base, syncline.setter(s, n.name))",
        "where false",
        "43-deletions: a delete that has not seen a field is not applied",
    ),
    (
        "judge_on_tombstone",
        "if o.kind = 'update' then",
        "if false then",
        "41-fields: an update of a tombstone that it has seen is gone",
    ),
    (
        "judge_on_tombstone",
        "j.state.deleted := null;",
        "",
        "43-deletions: an update that has not seen the delete revives the record with its last payload",
    ),
    (
        "accepted",
        "or not syncline.covers_clock(",
        "or false and not syncline.covers_clock(",
        "41-fields: a seen field beside an unseen one is merged without a conflict",
    ),
    (
        "patched",
        "syncline.without_nulls(s.payload || p_patch)",
        "s.payload || p_patch",
        "42-conflicts: a removal in conflict has no value of its own",
    ),
    (
        "decide",
        "v_blocked[o.lane] or",
        "",
        "51-transactions: one member that must wait for its lane defers all, and nothing is stored",
    ),
    (
        "decide",
        "coalesce(o.depends_on && v_without_effect, false)",
        "false",
        "62-answers: what depends on one without effect is deferred, and what depends on that too",
    ),
    (
        "decide",
        "for i in reverse v_culprit .. v_first loop",
        "for i in 1 .. 0 loop",
        "51-transactions: what members did before the culprit is undone, in their own lane too",
    ),
    (
        "repeat_of",
        "if k.hash <> o.hash then",
        "if false then",
        "61-keys: a key with another payload is refused, nothing is revealed or stored",
    ),
    (
        "repeat_of",
        "(k.device_id, k.sequence) <> (p_device_id, o.sequence)",
        "false",
        "61-keys: a verdict under another dot names that dot, and what follows in the lane is deferred once",
    ),
    (
        "load",
        "or a.sequence is not null",
        "",
        "63-history: a sequence that another key was applied under: a copy has written, nothing of the push is applied",
    ),
    (
        "load",
        "coalesce((e.clock -> r.device_id)::bigint, 0) >",
        "0 >",
        "63-history: a record that holds more of the device than the base clock: a copy has written",
    ),
    (
        "load",
        "o.base @> e.clock or syncline.covers_clock(o.base, e.clock)",
        "true",
        "41-fields: a field that was never set counts as set by the create: unseen, it conflicts",
    ),
    (
        "apply_plain",
        "u.kind = 'delete' or u.patch <> '{}'",
        "true",
        "41-fields: an update without members changes nothing and is applied",
    ),
    (
        "write",
        "mark = d.mark + 1",
        "mark = d.mark",
        "61-keys: a rejection is final under its key, although it would apply by now; another key is judged anew",
    ),
    (
        "results",
        "(o.known_as).version <= (p_cursor).version",
        "true",
        "41-fields: a field whose last setter was seen applies",
    ),
    (
        "open_scope",
        "r.mark >",
        "false and r.mark >",
        "63-history: a push with a mark ahead of the server's renews the epoch and does nothing",
    ),
    ("read_operations", "least(f.t_at, v_max_at)", "f.t_at", "42-conflicts: only the clamped timestamp is compared"),
    (
        "clock_of",
        "max((v.write -> 1)::bigint)",
        "min((v.write -> 1)::bigint)",
        "41-fields: an update of a tombstone that it has seen is gone",
    ),
    (
        "page",
        "c.version > p_after",
        "c.version >= p_after",
        "62-answers: what the device can compute is left out and counted, and the cursor comes along",
    ),
];

/// A database with a slip.
fn slip(prefix: &str, number: usize) -> PostgresHost {
    let (function, part, instead, _) = SLIPS[number];
    let name = format!("{prefix}_{number}");
    let database = crate::database(&name);
    crate::plant(&name, function, part, instead);
    PostgresHost::new(&database).unwrap()
}

fn words(number: usize) -> String {
    let (function, part, instead, _) = SLIPS[number];
    format!("{function}: `{instead}` for `{part}`")
}

#[test]
fn every_slip_is_caught_by_its_vector() {
    let vectors = load(&folder()).unwrap();
    let mut missed = Vec::new();
    for (number, (.., title)) in SLIPS.iter().enumerate() {
        let vector = vectors.iter().find(|vector| vector.title() == *title);
        let vector = vector.unwrap_or_else(|| panic!("there is no vector {title}"));
        match run_one(&mut slip("slip", number), vector, 1) {
            Outcome::Failed(why) => println!("{}\n    {}", words(number), why.chars().take(120).collect::<String>()),
            other => missed.push(format!("{}: {other:?}", words(number))),
        }
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

#[test]
fn random_streams_notice_every_slip_too() {
    let mut missed = Vec::new();
    for number in 0..SLIPS.len() {
        let embedded = EmbeddedHost::new().unwrap();
        let mut hosts: Vec<Box<dyn Host>> = vec![Box::new(embedded), Box::new(slip("stream", number))];
        hosts.iter_mut().for_each(|host| host.reset(&differential::types()).unwrap());
        let is_noticed = |seed: &u64| matches!(differential::run(&mut hosts, *seed), Err(Ended::Different(_)));
        match (1..=STREAMS).find(is_noticed) {
            Some(seed) => println!("{} is noticed at seed {seed}", words(number)),
            None => missed.push(words(number)),
        }
    }
    assert!(missed.is_empty(), "not noticed:\n{}", missed.join("\n"));
}
