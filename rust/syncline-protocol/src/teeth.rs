//! Bugs that are planted on purpose, to show that the tests would find them. Only with the feature `teeth`.
//!
//! Each is a plausible slip at one place of the core or the endpoint, behind [`planted!`](crate::planted). At most one is
//! planted at a time, on the current thread: simulated worlds run on one thread each, several side by side.

use std::cell::Cell;

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants `bug` on this thread, instead of the one before; none makes the code right again.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// The bug that is planted on this thread.
pub fn planted() -> Option<Bug> {
    PLANTED.get()
}

macro_rules! bugs {
    ($($bug:ident $name:literal from $source:literal: $breaks:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $breaks] $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            const fn row(self) -> [&'static str; 3] {
                match self {
                    $(Self::$bug => [$name, $source, $breaks],)*
                }
            }
        }
    };
}

impl Bug {
    /// Its name, in kebab case.
    pub const fn name(self) -> &'static str {
        self.row()[0]
    }

    /// The counter-example, the invariant or the section of the specification whose rule it breaks.
    pub const fn source(self) -> &'static str {
        self.row()[1]
    }

    /// What it breaks, in one sentence.
    pub const fn breaks(self) -> &'static str {
        self.row()[2]
    }

    /// Whether it needs several threads: then the check of schedules finds it, and simulated worlds, each one thread, need not.
    pub const fn needs_threads(self) -> bool {
        matches!(self, Self::LostWakeUp | Self::DoubleClaim)
    }

    /// The bug with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

bugs! {
    WaitForCancelled "wait-for-cancelled" from "counter-example 1": "A lane waits for a cancelled operation, for ever.";
    BaseMovesBack "base-moves-back" from "counter-example 2": "A late verdict replaces a base of a higher version.";
    LeftOutBeyondCursor "left-out-beyond-cursor" from "counter-example 3": "The endpoint leaves out results of an entity that the device has not pulled.";
    DroppedBaseKeepsVersion "dropped-base-keeps-version" from "counter-example 4": "A base that a reset drops keeps its version, so what the server says of the entity later is no news.";
    FoldOnAnyBase "fold-on-any-base" from "counter-example 5": "A new operation folds into one that had seen another base.";
    VanishOnBase "vanish-on-base" from "counter-example 6": "A create and its delete vanish although the server knows the entity.";
    FoldWithDependency "fold-with-dependency" from "counter-example 7": "A new operation with dependencies folds, and hands them to the older one.";
    CancelClaimed "cancel-claimed" from "counter-example 8": "An operation that may have left the device is cancelled at once.";
    SendBehindVoid "send-behind-void" from "counter-example 9": "What is behind a withdrawal is sent together with it.";
    RetryUnderOldKey "retry-under-old-key" from "counter-example 10": "A retry after a verdict is sent under the old key.";
    VoidNotStored "void-not-stored" from "counter-example 11": "The endpoint stores nothing for a withdrawn operation that it does not know.";
    TwinSequence "twin-sequence" from "counter-example 12": "The endpoint does not look whether another operation was applied under the same dot.";
    CoverOwnSequences "cover-own-sequences" from "counter-example 13": "An operation claims to have seen every earlier one of its device, applied or not.";
    OwnDotForForeign "own-dot-for-foreign" from "counter-example 14": "A repeated verdict does not name the device id under which the operation was applied.";
    ForgetMarks "forget-marks" from "counter-example 15": "Neither side compares marks.";
    ForgetEpoch "forget-epoch" from "counter-example 16": "The endpoint serves requests of another epoch.";
    AnswerOfOldEpoch "answer-of-old-epoch" from "counter-example 17": "An answer to a request of another epoch is taken.";
    PushWithoutEpoch "push-without-epoch" from "counter-example 18": "A new device pushes before it has pulled, and is served.";
    EqualTakesLast "equal-takes-last" from "counter-example 19": "An equal value takes the dot of whoever comes last.";
    FieldWithoutDot "field-without-dot" from "counter-example 20": "A field without a dot of its own counts as seen.";
    UpdateRevivesSeen "update-revives-seen" from "counter-example 21": "An update that has seen the tombstone revives the record.";
    RetryKeepsClock "retry-keeps-clock" from "counter-example 22": "Retrying a transaction that met a conflict does not take the clock that the app saw.";
    ActOnOneMember "act-on-one-member" from "counter-example 23": "An action takes one member of a transaction and leaves the others.";
    KeyWithoutSequence "key-without-sequence" from "counter-example 24": "The derived key covers neither the sequence nor the hybrid clock.";
    NoMoreTooEarly "no-more-too-early" from "counter-example 25": "A full page says that there is no more.";
    ForgetSeenTimes "forget-seen-times" from "counter-example 26": "A timestamp may be below those that the device has pulled.";
    MarksByArrival "marks-by-arrival" from "counter-example 27": "Marks are compared with the last one to arrive.";
    FoldFirstLeftOut "fold-first-left-out" from "counter-example 28": "Of an entity's left-out results only the first is folded into the base.";
    ResetKeepsBases "reset-keeps-bases" from "counter-example 29": "A reset leaves the bases confirmed.";
    TakeAnyCursor "take-any-cursor" from "counter-example 30": "The cursor of an answer is taken whatever has happened meanwhile.";
    ResolveWithBase "resolve-with-base" from "counter-example 31": "Resolving takes the clock of the present base.";
    ClockAtCommit "clock-at-commit" from "counter-example 32": "A transaction's member takes its clock at the commit.";
    GroupRefusalNotStored "group-refusal-not-stored" from "counter-example 33": "The refusals of a transaction's members are not stored.";
    HashWithoutEntity "hash-without-entity" from "counter-example 34": "The stored hash does not cover the entity.";
    ForgetOwnTimes "forget-own-times" from "counter-example 35": "A timestamp may be below those that the device gave before.";
    SilenceWithoutSearch "silence-without-search" from "counter-example 36": "A batch that something on the way refuses is never bisected.";
    FoldIntoCancelled "fold-into-cancelled" from "counter-example 38": "A new operation folds into a cancelled one.";
    KeepCancelled "keep-cancelled" from "counter-example 39": "Cancelled operations are never pruned.";

    AckOutsideTransaction "ack-outside-transaction" from "invariant 1": "Verdicts are committed before their counts and bases.";
    MergedNotStored "merged-not-stored" from "invariant 2": "The verdict `merged` is not stored under its key.";
    IgnoreLane "ignore-lane" from "invariant 3": "An operation is sent although an earlier one of its entity has not ended.";
    ParkEveryone "park-everyone" from "invariant 4": "What comes after an operation that must wait is put aside with it.";
    SkipBusyEntities "skip-busy-entities" from "invariant 5": "A pulled change is dropped when the entity has open operations.";
    SplitGroup "split-group" from "invariant 6": "A transaction is sent in parts.";
    NoLedgerRow "no-ledger-row" from "invariant 7": "The endpoint does not write the ledger.";
    SynchronousOff "synchronous-off" from "invariant 8": "A commit does not wait for the disk.";
    LogNotMoved "log-not-moved" from "invariant 8": "What an earlier process left in the log is built upon, flushed or not.";
    QuoteValue "quote-value" from "invariant 9": "The message of a rejection quotes the value.";
    TrustBodyScope "trust-body-scope" from "invariant 10": "The endpoint believes the scope that the request names.";
    LostWakeUp "lost-wake-up" from "invariant 11": "Who stands next in the writers' line is not woken.";
    TimerNotArmed "timer-not-armed" from "invariant 11": "After a failure the next local write has to wake delivery.";

    WallClock "wall-clock" from "spec §4": "Timestamps are the wall clock's.";
    DoubleClaim "double-claim" from "spec §2": "The process lock is released while requests are under way.";
    SkipRescue "skip-rescue" from "spec §2": "Leases of older terms are not returned.";
    ForgetTerm "forget-term" from "spec §2": "A verdict of an older term is taken.";
    CountOffline "count-offline" from "spec §2": "A request without an answer counts as an attempt.";
    DropRetryAfter "drop-retry-after" from "spec §2": "`Retry-After` is not honoured.";
    RetryAfterInMemory "retry-after-in-memory" from "spec §2": "`Retry-After` is forgotten over a restart.";
    CutWithoutEnd "cut-without-end" from "spec §2": "A `Retry-After` that a jump of the clock cut is cut anew at every look.";
    WaitNotCut "wait-not-cut" from "spec §2": "An operation's stored wait is not cut after the clock was set back.";
    AttemptsNotReset "attempts-not-reset" from "spec §2": "A user's retry does not count the attempts anew.";
    BudgetEndsInCancel "budget-ends-in-cancel" from "spec §2": "An operation whose attempts are used up is cancelled.";
    SendDependent "send-dependent" from "spec §2": "Dependents of a cancelled operation are sent.";
    ForgetParked "forget-parked" from "spec §2": "What waits for an operation is not looked at again when that one is completed.";
    FoldSent "fold-sent" from "spec §2": "A new operation folds into one that has been sent.";
    CoalescedLeadsNowhere "coalesced-leads-nowhere" from "spec §2": "A coalesced operation does not lead to its survivor.";
    NeverShrinks "never-shrinks" from "spec §2": "A batch that is too large is sent again as it was.";
    ChargeUnasked "charge-unasked" from "spec §2": "One that stands alone is blamed without an empty push.";
    ProxyIsOurs "proxy-is-ours" from "spec §2": "An error page without our header counts as the endpoint's answer.";
    AuthStuck "auth-stuck" from "spec §2": "A refused credential is never asked for again.";
    PruneLast "prune-last" from "spec §2": "The last row of the queue is pruned, and sequences begin again.";
    FoldLeftOutTwice "fold-left-out-twice" from "spec §3": "Left-out results are folded into a base that had them.";
    ResetKeepsCurrent "reset-keeps-current" from "spec §3": "The value of an entity that a reset dropped stays.";
    CursorBeforePage "cursor-before-page" from "spec §6": "The cursor is committed before its page.";
    DeleteUnseen "delete-unseen" from "spec §4": "A delete wins over values that it has not seen, without a row.";
    NoClamp "no-clamp" from "spec §4": "A timestamp far ahead is not clamped.";
    GroupFailsInPart "group-fails-in-part" from "spec §5": "A transaction whose member used up its attempts fails only in that member.";
    KeepsHalf "keeps-half" from "spec §5": "What a failed transaction did before its culprit stays.";
    IgnoreDeferred "ignore-deferred" from "spec §6": "`deferred` counts as applied.";
    UnknownVerdictSettles "unknown-verdict-settles" from "spec §6": "An answer with a verdict for an operation never sent is settled.";
    ForgedCount "forged-count" from "spec §6": "An answer that does not add up is settled.";
    PruneEarly "prune-early" from "spec §6": "Completed operations are pruned at once.";
    KeptNotReturned "kept-not-returned" from "spec §6": "Completed operations are not sent again to a server that went back.";
    ForkKeepsMark "fork-keeps-mark" from "spec §6": "A new device id goes on with the old one's mark.";
    VerdictOutsideTransaction "verdict-outside-transaction" from "spec §6": "The endpoint commits an effect before its key.";
    KeysOfAllScopes "keys-of-all-scopes" from "spec §6": "A key is looked up in every scope.";
    HashNotCompared "hash-not-compared" from "spec §6": "A key that comes with another payload repeats its verdict.";
    RejectionNotStored "rejection-not-stored" from "spec §6": "A rejection is not stored.";
    VersionPerOperation "version-per-operation" from "spec §6": "The scope's head rises by operations, not by entities.";
    CursorAtHead "cursor-at-head" from "spec §6": "A full page's cursor stands at the head.";
    EmptyPushUncounted "empty-push-uncounted" from "spec §6": "An empty push raises no mark.";
    BlockedLaneGoesOn "blocked-lane-goes-on" from "spec §6": "The endpoint goes on in a lane behind an operation that was not applied.";
    EventLost "event-lost" from "spec §8": "A cancelled operation gives no event.";
    EventTwice "event-twice" from "spec §8": "Events are told twice.";
    EventsOutOfOrder "events-out-of-order" from "spec §8": "The events of one commit are told in reverse.";
    ConflictCountedTwice "conflict-counted-twice" from "spec §8": "`conflicts_detected` counts a repeated verdict again.";
    BytesDrift "bytes-drift" from "spec §8": "`bytes_pending` does not follow folding.";
    CompletedCountStays "completed-count-stays" from "spec §8": "`completed_total` counts what was returned to pending.";
    ExplainForgetsLane "explain-forgets-lane" from "spec §8": "`explain` does not name what stands before an operation.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_one_of_a_kind_and_lead_back() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::parse(bug.name()), Some(*bug));
            let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(bug.name().chars().all(kebab) && bug.breaks().ends_with('.'), "{bug:?}");
        }
        assert_eq!(Bug::parse("no-such-bug"), None);
    }

    #[test]
    fn every_counter_example_and_invariant_has_one() {
        let sources: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.source()).collect();
        // 37 is about modes, which are still to come.
        for number in (1..=39).filter(|number| *number != 37) {
            assert!(sources.contains(&*format!("counter-example {number}")), "counter-example {number}");
        }
        for number in 1..=11 {
            assert!(sources.contains(&*format!("invariant {number}")), "invariant {number}");
        }
        for source in sources {
            let known = ["counter-example ", "invariant ", "spec §"].iter().any(|kind| source.starts_with(kind));
            assert!(known, "{source}");
        }
        assert!(Bug::ALL.len() >= 90);
    }

    #[test]
    fn one_thread_s_bug_is_not_another_s() {
        plant(Some(Bug::WallClock));
        assert!(crate::planted!(WallClock) && !crate::planted!(ForgetTerm));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(planted(), None)).join()).unwrap();
        plant(None);
        assert!(!crate::planted!(WallClock));
    }
}
