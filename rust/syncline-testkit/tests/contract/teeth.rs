//! Planted bugs of the endpoint, each with a vector that catches it (ADR 18).
#![expect(clippy::print_stdout, reason = "the table is what is wanted")]

use syncline_protocol::teeth::{Bug, plant};
use syncline_testkit::contract::teeth::caught_by;
use syncline_testkit::contract::{EmbeddedHost, Host, folder, load};
use syncline_testkit::differential::{self, Ended};

/// The bug, and the vector that is there to catch it. `verdict-outside-transaction` is not among them: what a death in the
/// middle of a commit leaves behind is the simulator's to find.
const TABLE: &[(&str, &str)] = &[
    (
        "left-out-beyond-cursor",
        "62-answers: an entity above the push's cursor is told, and the cursor does not come along",
    ),
    ("void-not-stored", "61-keys: a void of an unknown key is stored as rejected, and a late first request finds that"),
    (
        "twin-sequence",
        "63-history: a sequence that another key was applied under: a copy has written, nothing of the push is applied",
    ),
    (
        "own-dot-for-foreign",
        "61-keys: a verdict under another dot names that dot, and what follows in the lane is deferred once",
    ),
    ("forget-marks", "63-history: a push with a mark ahead of the server's renews the epoch and does nothing"),
    ("forget-epoch", "63-history: a push of another epoch is behind, and renews nothing"),
    ("push-without-epoch", "63-history: a push without an epoch is behind: a new device pulls first"),
    ("equal-takes-last", "41-fields: an equal value that is earlier leaves the dot, and nothing has changed"),
    (
        "field-without-dot",
        "41-fields: a field of a record that was deleted and created anew counts as set by the new create",
    ),
    ("update-revives-seen", "41-fields: an update of a tombstone that it has seen is gone"),
    ("no-more-too-early", "64-pulls: pages follow each other, and one that changes meanwhile comes again later"),
    (
        "group-refusal-not-stored",
        "51-transactions: a member that is rejected fails the others in its name, and all of it is stored",
    ),
    ("hash-without-entity", "61-keys: the hash is over the entity's id: one key for the deletes of two entities"),
    ("merged-not-stored", "61-keys: the verdict merged is repeated with its conflict"),
    ("no-ledger-row", "42-conflicts: an unseen field conflicts, and the later write wins"),
    ("quote-value", "91-tenancy: no text of a payload is repeated where people read"),
    (
        "trust-body-scope",
        "91-tenancy: a push to a scope that the token does not open is refused, whether it exists or not",
    ),
    ("delete-unseen", "43-deletions: a delete that has not seen a field is not applied"),
    ("no-clamp", "42-conflicts: only the clamped timestamp is compared"),
    ("keeps-half", "51-transactions: what members did before the culprit is undone, in their own lane too"),
    ("keys-of-all-scopes", "61-keys: a key is private to its scope"),
    ("hash-not-compared", "61-keys: a key with another payload is refused, nothing is revealed or stored"),
    (
        "rejection-not-stored",
        "61-keys: a rejection is final under its key, although it would apply by now; another key is judged anew",
    ),
    ("version-per-operation", "62-answers: many operations of one entity raise the head by one"),
    ("cursor-at-head", "64-pulls: a page holds about 1 MiB of records"),
    ("empty-push-uncounted", "62-answers: an empty push is answered, and counted"),
    (
        "blocked-lane-goes-on",
        "62-answers: what comes behind a rejected one in its lane is deferred and not stored, other lanes go on",
    ),
];

#[test]
fn every_planted_bug_is_caught_by_its_vector() {
    let vectors = load(&folder()).unwrap();
    let mut missed = Vec::new();
    for (name, title) in TABLE {
        let bug = Bug::parse(name).unwrap_or_else(|| panic!("there is no bug {name}"));
        let vector = vectors.iter().find(|vector| vector.title() == *title);
        let vector = vector.unwrap_or_else(|| panic!("there is no vector {title}"));
        match caught_by(bug, std::slice::from_ref(vector)).unwrap().first() {
            Some((_, why)) => println!("{name:<28}{title}\n{:28}{}", "", why.chars().take(120).collect::<String>()),
            None => missed.push(*name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    assert!(TABLE.len() >= 20);
}

/// Of streams, which most bugs meet sooner.
const MOST_STREAMS: u64 = 150;
/// Sentences for people are not compared.
const NOT_BY_STREAMS: &[&str] = &["quote-value"];

#[test]
fn random_streams_find_planted_bugs_too() {
    let mut missed = Vec::new();
    for (name, _) in TABLE {
        let bug = Bug::parse(name).unwrap_or_else(|| panic!("there is no bug {name}"));
        let mut hosts: Vec<Box<dyn Host>> = vec![Box::new(EmbeddedHost::new().unwrap())];
        hosts[0].reset(&differential::types()).unwrap();
        plant(Some(bug));
        let found = (1..=MOST_STREAMS).find_map(|seed| match differential::run(&mut hosts, seed) {
            Err(Ended::Different(difference)) => Some((seed, difference)),
            _ => None,
        });
        plant(None);
        match found {
            Some((seed, it)) => println!("{name:<28}seed {seed}: {}", it.what.chars().take(100).collect::<String>()),
            None => missed.push(*name),
        }
    }
    assert_eq!(missed, NOT_BY_STREAMS);
}
