//! Whether the server's history is still the one that this device knows (spec §6): epochs, and marks counted per batch.

use std::collections::BTreeSet;

use syncline_protocol::{MAX_COUNTER, PushResponse, planted};

/// What a push said about history when it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The epoch it carried.
    pub(crate) epoch: String,
    /// The highest mark recorded then.
    pub(crate) mark: u64,
    /// It commits nothing, so its answer has no mark.
    pub(crate) dry_run: bool,
}

/// What an answer says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It continues.
    Continues,
    /// The server went back in time.
    WentBack {
        /// Where it is now.
        epoch: String,
        /// Its mark for this device.
        mark: u64,
    },
    /// The mark is missing, or one that no endpoint can have.
    Invalid,
}

/// The marks of answers that may still be overtaken by others. Answers arrive in any order, so a mark is compared with those of
/// other batches and with the one that its own request carried, never with the last one to arrive.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    received: BTreeSet<u64>,
}

impl Marks {
    /// Checks an answer and notes its mark.
    pub(crate) fn check(&mut self, known: &Known, response: &PushResponse) -> Answer {
        if known.dry_run {
            return match response.epoch == known.epoch {
                true => Answer::Continues,
                false => Answer::WentBack { epoch: response.epoch.clone(), mark: known.mark },
            };
        }
        let Some(mark) = response.mark.filter(|mark| *mark <= MAX_COUNTER) else { return Answer::Invalid };
        let overtaken = planted!(MarksByArrival) && self.received.last().is_some_and(|last| mark < *last);
        let repeated = mark <= known.mark || !self.received.insert(mark) || overtaken;
        if response.epoch != known.epoch || (repeated && !planted!(ForgetMarks)) {
            return Answer::WentBack { epoch: response.epoch.clone(), mark };
        }
        Answer::Continues
    }

    /// Forgets what no request in flight can tell apart any more. `lowest`: the lowest mark that one of them carries.
    pub(crate) fn settle(&mut self, lowest: Option<u64>) {
        match lowest {
            Some(lowest) => self.received = self.received.split_off(&(lowest + 1)),
            None => self.received.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(epoch: &str, mark: Option<u64>) -> PushResponse {
        let text = format!(
            r#"{{"version":1,"epoch":"{epoch}","mark":{},"server_time":"2026-01-01T00:00:00.000Z"}}"#,
            mark.map_or("null".into(), |mark| mark.to_string())
        );
        serde_json::from_str(&text).unwrap()
    }

    fn known(mark: u64) -> Known {
        Known { epoch: "e1".into(), mark, dry_run: false }
    }

    #[test]
    fn answers_in_reverse_order_continue() {
        let mut marks = Marks::default();
        assert_eq!(marks.check(&known(5), &response("e1", Some(7))), Answer::Continues);
        assert_eq!(marks.check(&known(5), &response("e1", Some(6))), Answer::Continues);
    }

    #[test]
    fn a_mark_that_another_batch_had_means_that_the_server_went_back() {
        let mut marks = Marks::default();
        assert_eq!(marks.check(&known(5), &response("e1", Some(6))), Answer::Continues);
        let back = Answer::WentBack { epoch: "e1".into(), mark: 6 };
        assert_eq!(marks.check(&known(5), &response("e1", Some(6))), back);
        assert_eq!(marks.check(&known(6), &response("e1", Some(6))), back);
    }

    #[test]
    fn another_epoch_means_that_the_server_went_back() {
        let mut marks = Marks::default();
        let back = Answer::WentBack { epoch: "e2".into(), mark: 9 };
        assert_eq!(marks.check(&known(5), &response("e2", Some(9))), back);
    }

    #[test]
    fn a_dry_run_has_no_mark() {
        let mut marks = Marks::default();
        let dry = Known { dry_run: true, ..known(5) };
        for _ in 0..2 {
            assert_eq!(marks.check(&dry, &response("e1", None)), Answer::Continues);
        }
        assert_eq!(marks.check(&known(5), &response("e1", None)), Answer::Invalid);
    }

    #[test]
    fn only_marks_that_matter_are_kept() {
        let mut marks = Marks::default();
        for mark in 6..=9 {
            marks.check(&known(5), &response("e1", Some(mark)));
        }
        marks.settle(Some(7));
        assert_eq!(marks.received, BTreeSet::from([8, 9]));
        marks.settle(None);
        assert!(marks.received.is_empty());
    }
}
