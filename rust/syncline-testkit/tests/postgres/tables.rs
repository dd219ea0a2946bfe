//! Random streams to types that are tables, which somebody else writes as well; the model judges (`make differential` sends many).
#![expect(clippy::print_stdout, reason = "which slip, and by what it was noticed")]

use syncline_testkit::contract::{Host, PostgresHost};
use syncline_testkit::differential::{Ended, TYPES, run, types};

const STREAMS: u64 = 40;
/// How many streams may be needed to notice a slip.
const MOST_STREAMS: u64 = 60;

/// In what takes up direct writes, and what writes rows: a function, a part of it, and what stands there instead.
const SLIPS: [(&str, &str, &str); 6] = [
    ("absorb_rows", "greatest(p_now, e.changed_at + 1)", "p_now"),
    ("absorb_rows", "d.record is null as is_gone", "false as is_gone"),
    ("with_fields", "(p_record - p_names)", "p_record"),
    ("row_writes", "order by e.lane, e.start, e.n desc", "order by e.lane, e.start, e.n"),
    ("absorb", "order by g.id", "order by g.id desc"),
    ("settle_clocks", "e.deleted is null", "e.deleted is null and false"),
];

fn hosts(name: &str) -> Vec<Box<dyn Host>> {
    let mut host = PostgresHost::with_tables(&crate::database(name), TYPES).unwrap();
    host.reset(&types()).unwrap();
    vec![Box::new(host)]
}

#[test]
fn registered_types_answer_random_streams_as_the_model_does() {
    let mut hosts = hosts("tables");
    let mut direct = 0;
    for seed in 1..=STREAMS {
        let stream = run(&mut hosts, seed).unwrap_or_else(|ended| panic!("seed {seed}: {ended:?}"));
        direct += stream.words["written directly"];
    }
    assert!(direct >= STREAMS, "only {direct} direct writes");
}

#[test]
fn slips_in_what_takes_up_direct_writes_are_noticed() {
    let mut missed = Vec::new();
    for (number, (function, part, instead)) in SLIPS.iter().enumerate() {
        let name = format!("tables_{number}");
        let mut hosts = hosts(&name);
        crate::plant(&name, function, part, instead);
        match (1..=MOST_STREAMS).find(|seed| matches!(run(&mut hosts, *seed), Err(Ended::Different(_)))) {
            Some(seed) => println!("{function}: `{instead}` for `{part}` is noticed at seed {seed}"),
            None => missed.push(format!("{function}: `{instead}` for `{part}`")),
        }
    }
    assert!(missed.is_empty(), "not noticed:\n{}", missed.join("\n"));
}
