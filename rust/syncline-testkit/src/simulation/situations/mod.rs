//! The situations of the counter-examples, recognised in what a world shows: how often the schedule of each line came about,
//! whether or not anything would have gone wrong by it. Line 37 is about modes, which are not there yet.
//!
//! - `wire` looks at what arrived at the endpoint, `files` at a device's file before and after, `held` at answers that come late.
//! - What the reference endpoint's rules already tell apart is taken from there.

pub(super) mod files;
pub(super) mod held;
pub(super) mod wire;

use super::coverage::{Counts, Coverage};

/// The kind under which they are counted.
pub const KIND: &str = "counter-example";

/// Every line, by its number and what happens in it.
pub const LINES: &[&str] = &[
    "1 an update behind a create that was cancelled",
    "2 a verdict repeated after a newer value was pulled",
    "3 completed before its base is there",
    "4 a reset drops what an operation is about",
    "5 two that could fold, on different bases",
    "6 a delete behind a create of what others made",
    "7 dependencies that folding would close to a circle",
    "8 withdrawn while its answer was outstanding",
    "9 a write behind a withdrawal",
    "10 a rejected one tried again",
    "11 the first request arrives after a withdrawal or another try",
    "12 two files, one sequence, two operations",
    "13 a file that has not seen what its copy wrote",
    "14 a copy goes on after what the other delivered",
    "15 a push to a server that went back",
    "16 an old request arrives at a server that went back",
    "17 an answer of a history that is over",
    "18 a push without an epoch",
    "19 one value twice, the older later",
    "20 a field that only a create set",
    "21 an update of what the device has seen deleted",
    "22 a transaction tried again after a conflict",
    "23 a member of a transaction given up",
    "24 the same write twice within a millisecond",
    "25 a page ends within a transaction",
    "26 a write after one from the future",
    "27 answers to pushes in reverse order",
    "28 two of one entity left out together",
    "29 a reset brings a lower version",
    "30 a cursor arrives during a reset",
    "31 resolved after a newer value was pulled",
    "32 a pull between a member and the commit",
    "33 a failed transaction arrives again",
    "34 one key for two operations",
    "35 a write after the clock was set back",
    "36 a firewall refuses one payload",
    "38 a write behind one cancelled before it was sent",
    "39 a cancelled one forgotten",
];

/// Lines that are a rule of the reference endpoint, or a fault of the network.
const KNOWN_AS: &[(u8, &str, &str)] = &[
    (12, "rule", "2: a dot applied under another key"),
    (13, "rule", "2: a dot of its own that it has not seen"),
    (14, "rule", "1: what follows that is deferred"),
    (19, "rule", "4: an equal value, theirs the later"),
    (20, "rule", "4: a field that only the create set"),
    (21, "rule", "3: an update that has seen the tombstone"),
    (36, "fault", "a firewall refuses one payload"),
];

/// One more of a line.
fn note(coverage: &Coverage, line: u8) {
    coverage.note(KIND, name(line));
}

fn name(line: u8) -> &'static str {
    let is_it = |name: &&&str| name.split(' ').next().is_some_and(|number| number.parse() == Ok(line));
    LINES.iter().find(is_it).expect("every line that is noted has a name")
}

/// Adds the lines that are counted under other names.
pub(super) fn add_known(coverage: &Coverage, counts: &Counts) {
    for (line, kind, known) in KNOWN_AS {
        coverage.add(KIND, name(*line), counts.get(&(*kind, (*known).to_owned())).copied().unwrap_or(0));
    }
}
