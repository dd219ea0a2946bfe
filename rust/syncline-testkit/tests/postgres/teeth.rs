//! Slips planted in the SQL, each of which the random requests of [`crate::differ`] must notice: a test that cannot fail proves nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use syncline_testkit::contract::{EmbeddedHost, PostgresHost};

/// How many streams may be needed to notice one.
const STREAMS: u64 = 150;

/// A function, a part of it, and what stands there instead.
const SLIPS: [(&str, &str, &str); 24] = [
    ("is_later", "collate \"C\") > (", "collate \"C\") < ("),
    ("judge_patch", "syncline.same_value(s.payload -> f.key, f.value)", "false"),
    ("judge_patch", "if syncline.is_later(p_write, v_setter) then", "if true then"),
    ("judge_patch", "when 'server_wins' then 'theirs'", "when 'server_wins' then 'ours'"),
    ("judge_delete", "where not syncline.covers(o.base, syncline.setter(s, n.name))", "where false"),
    ("judge_on_tombstone", "if o.kind = 'update' then", "if false then"),
    ("judge_on_tombstone", "j.state.deleted := null;", ""),
    ("accepted", "or not syncline.covers_clock(", "or false and not syncline.covers_clock("),
    ("patched", "syncline.without_nulls(s.payload || p_patch)", "s.payload || p_patch"),
    ("decide", "v_blocked[o.lane] or", ""),
    ("decide", "coalesce(o.depends_on && v_without_effect, false)", "false"),
    ("decide", "for i in reverse v_culprit .. v_first loop", "for i in 1 .. 0 loop"),
    ("repeat_of", "if k.hash <> o.hash then", "if false then"),
    ("repeat_of", "(k.device_id, k.sequence) <> (p_device_id, o.sequence)", "false"),
    ("load", "or a.sequence is not null", ""),
    ("load", "coalesce((e.clock -> r.device_id)::bigint, 0) >", "0 >"),
    ("load", "o.base @> e.clock or syncline.covers_clock(o.base, e.clock)", "true"),
    ("apply_plain", "u.kind = 'delete' or u.patch <> '{}'", "true"),
    ("write", "mark = d.mark + 1", "mark = d.mark"),
    ("results", "(o.known_as).version <= (p_cursor).version", "true"),
    ("open_scope", "r.mark >", "false and r.mark >"),
    ("read_operations", "least(f.t_at, v_max_at)", "f.t_at"),
    ("clock_of", "max((v.write -> 1)::bigint)", "min((v.write -> 1)::bigint)"),
    ("page", "c.version > p_after", "c.version >= p_after"),
];

#[test]
#[expect(clippy::print_stdout, reason = "which slip, at which seed")]
fn every_slip_is_noticed() {
    let mut unnoticed = Vec::new();
    for (number, (function, part, instead)) in SLIPS.iter().enumerate() {
        let name = format!("slip_{number}");
        let database = crate::database(&name);
        crate::sql(
            &name,
            &format!(
                "DO $do$ DECLARE v_text text := pg_get_functiondef('syncline.{function}'::regproc); BEGIN
                   IF strpos(v_text, $part${part}$part$) = 0 THEN RAISE 'there is no such part'; END IF;
                   EXECUTE replace(v_text, $part${part}$part$, $part${instead}$part$);
                 END $do$"
            ),
        );
        let mut postgres = PostgresHost::new(&database).unwrap();
        let mut embedded = EmbeddedHost::new().unwrap();
        let mut is_noticed = |seed: &u64| {
            let mut words = BTreeMap::new();
            let lived = || crate::differ::live(*seed, &mut embedded, &mut postgres, &mut words);
            catch_unwind(AssertUnwindSafe(lived)).is_err()
        };
        match (1..=STREAMS).find(|seed| is_noticed(seed)) {
            Some(seed) => println!("{function}: `{instead}` for `{part}` is noticed at seed {seed}"),
            None => unnoticed.push(format!("{function}: `{instead}` for `{part}`")),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed:\n{}", unnoticed.join("\n"));
}
