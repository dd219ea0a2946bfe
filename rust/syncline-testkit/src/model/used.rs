//! Which rules of spec §4 the reference endpoint has decided by, counted: a run shows by it what it has tried.

use std::collections::BTreeMap;

/// How often each rule was used, by its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(BTreeMap<&'static str, u64>);

impl Used {
    pub(crate) fn note(&mut self, rule: &'static str) {
        *self.0.entry(rule).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (rule, count) in other.0 {
            *self.0.entry(rule).or_default() += count;
        }
    }

    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.0
    }
}

/// Every name that is noted: the rules of §4 with their branches.
pub const RULES: &[&str] = &[
    "1: a known key, its verdict repeated",
    "1: a known key, applied under another dot",
    "1: what follows that is deferred",
    "2: a sequence that was forgotten",
    "2: a dot applied under another key",
    "2: a dot of its own that it has not seen",
    "3: no record, a create",
    "3: no record, a delete",
    "3: no record, an update of what never was",
    "3: no record, an update of what was",
    "3: an update that has seen the tombstone",
    "4: a field whose setter was seen",
    "4: an equal value, ours the later",
    "4: an equal value, theirs the later",
    "4: a field that only the create set",
    "4: the base covers all",
    "4: the base does not cover all",
    "4: a create of a live record",
    "4: a create that has seen the tombstone",
    "5: last_writer_wins, ours",
    "5: last_writer_wins, theirs",
    "5: last_writer_wins, a tie of timestamps",
    "5: server_wins",
    "5: client_wins",
    "5: manual",
    "6: a delete, update_wins",
    "6: a delete, delete_wins",
    "6: a delete, manual",
    "6: a delete of a record without fields",
    "6: a write on a tombstone, update_wins",
    "6: a write on a tombstone, delete_wins",
    "6: a write on a tombstone, manual",
    "6: a create that has not seen the tombstone",
    "6: a delete of a tombstone",
    "7: a row with base",
    "7: a row without base",
];
