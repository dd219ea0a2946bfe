//! Random lives of a store, checked after every step. proptest prints the steps and the seed of a life that fails.

use proptest::prelude::*;
use syncline_protocol::Conflict;

use super::*;
use crate::conflict::Resolution;

#[derive(Debug, Clone)]
enum Step {
    Write { kind: u8, entity: u8, field: u8, value: u8, depends: bool },
    Group { entity: u8 },
    Claim { most: usize },
    Settle { verdicts: Vec<u8> },
    GiveBack { how: u8 },
    Act { action: u8, which: usize },
    Pull { entity: u8, deleted: bool, more: bool },
    Reset,
    WentBack,
    Fork,
    Prune,
    Wait { millis: i64 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, 0u8..3, 0u8..2, 0u8..4, any::<bool>())
            .prop_map(|(kind, entity, field, value, depends)| Step::Write { kind, entity, field, value, depends }),
        1 => (0u8..3).prop_map(|entity| Step::Group { entity }),
        6 => (1usize..6).prop_map(|most| Step::Claim { most }),
        6 => prop::collection::vec(0u8..8, 6).prop_map(|verdicts| Step::Settle { verdicts }),
        2 => (0u8..5).prop_map(|how| Step::GiveBack { how }),
        5 => (0u8..5, 0usize..20).prop_map(|(action, which)| Step::Act { action, which }),
        3 => (0u8..3, any::<bool>(), any::<bool>())
            .prop_map(|(entity, deleted, more)| Step::Pull { entity, deleted, more }),
        1 => Just(Step::Reset),
        1 => Just(Step::WentBack),
        1 => Just(Step::Fork),
        1 => Just(Step::Prune),
        3 => (-100_000i64..2_000_000).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Crash),
    ]
}

/// A store with the little that a server would remember.
struct Life {
    bench: Option<Bench>,
    batch: Option<ClaimedBatch>,
    head: u64,
    count: u64,
    last: Option<Receipt>,
}

impl Life {
    fn bench(&mut self) -> &mut Bench {
        self.bench.as_mut().expect("there is always one between steps")
    }

    fn take(&mut self, step: &Step) {
        self.count += 1;
        match step {
            Step::Write { kind, entity, field, value, depends } => self.write(*kind, *entity, *field, *value, *depends),
            Step::Group { entity } => {
                let (count, id) = (self.count, format!("e{entity}"));
                let operations = vec![
                    NewOperation::update("pin", id, r#"{"f0":9}"#),
                    NewOperation::create("pin", format!("g{count}"), "{}"),
                ];
                self.bench().group(&format!("t{count}"), operations);
            }
            Step::Claim { most } => self.claim(*most),
            Step::Settle { verdicts } => self.settle(verdicts),
            Step::GiveBack { how } => self.give_back(*how),
            Step::Act { action, which } => self.act(*action, *which),
            Step::Pull { entity, deleted, more } => {
                self.head += 1;
                let (head, id) = (self.head, format!("e{entity}"));
                let record = format!(r#"{{"f0":{head}}}"#);
                let record = (!deleted).then_some(record.as_str());
                self.bench().pull(vec![change(&id, head, record, clock(&[("B", head)]))], &format!("c{head}"), *more);
            }
            Step::Reset => self.bench().store.write(Store::begin_reset).expect("resets"),
            Step::WentBack => {
                self.give_back(0);
                let now = self.bench().now;
                self.bench().store.server_went_back("e1", 0, now).expect("goes back");
            }
            Step::Fork => {
                self.batch = None;
                let (now, id) = (self.bench().now, format!("A{}", self.count));
                self.bench().store.fork(&id, now).expect("forks");
            }
            Step::Prune => {
                let now = self.bench().now;
                self.bench().store.prune(now).expect("prunes");
            }
            Step::Wait { millis } => self.bench().now = self.bench().now.plus_millis(*millis),
            Step::Crash => {
                self.batch = None;
                self.bench = self.bench.take().map(Bench::reopen);
            }
        }
        self.bench().assert_consistent();
    }

    fn write(&mut self, kind: u8, entity: u8, field: u8, value: u8, depends: bool) {
        let id = format!("e{entity}");
        let value = if value == 3 { "null".to_owned() } else { value.to_string() };
        let payload = format!(r#"{{"f{field}":{value}}}"#);
        let mut operation = match kind {
            0 => NewOperation::create("pin", id, payload),
            1 => NewOperation::update("pin", id, payload),
            _ => NewOperation::delete("pin", id),
        };
        if let (true, Some(last)) = (depends, &self.last) {
            operation = operation.after(last);
        }
        let prepared = self.bench().prepare(operation);
        let now = self.bench().now;
        if let Ok(receipt) = self.bench().store.enqueue(&prepared, now) {
            self.last = Some(receipt);
        }
    }

    /// What the planner would take, in its simplest form: one lane at a time, whole groups, nothing blocked.
    fn claim(&mut self, most: usize) {
        if self.batch.is_some() {
            return;
        }
        let bench = self.bench();
        let candidates = bench.store.candidates(0, 100, bench.now).expect("candidates");
        let blocked = |candidate: &Candidate| candidate.predecessor.is_some() || !candidate.dependencies.is_empty();
        let mut parks = Vec::new();
        let mut take = Vec::new();
        for candidate in &candidates.list {
            let group: Vec<&Candidate> = match &candidate.transaction_id {
                None => vec![candidate],
                id => candidates.list.iter().filter(|other| other.transaction_id == *id).collect(),
            };
            match group.iter().find(|member| blocked(member)) {
                Some(member) => {
                    let blocker = member.predecessor.iter().chain(&member.dependencies).next().expect("blocked");
                    let on = blocker.parked_on.unwrap_or(blocker.sequence) as i64;
                    if group.iter().all(|member| member.sequence as i64 != on) {
                        parks.push(Park { sequence: candidate.sequence, on });
                    }
                }
                None if take.len() < most => take.extend(group.iter().map(|member| member.sequence)),
                None => {}
            }
        }
        bench.store.park(&parks).expect("parks");
        take.sort_unstable();
        take.dedup();
        let batch = bench.claim(&take);
        self.batch = Some(batch).filter(|batch| !batch.sent.is_empty());
    }

    fn settle(&mut self, verdicts: &[u8]) {
        let Some(batch) = self.batch.take() else { return };
        let mut head = self.head;
        let mut results = Vec::new();
        let grouped = |operation: &syncline_protocol::PushOperation| operation.transaction_id.is_some();
        let group_verdict = verdicts[0] % 3;
        for (n, operation) in batch.operations.iter().enumerate() {
            let verdict = if grouped(operation) { [0, 2, 4][usize::from(group_verdict)] } else { verdicts[n % 6] };
            head += 1;
            let full =
                |status| with_record(named_result(&operation.id, status), head, r#"{"f1":1}"#, clock(&[("A", head)]));
            results.push(match (verdict, operation.void) {
                (0 | 1, false) => full(Status::Applied),
                (2, _) | (0 | 1, true) => rejected(&operation.id, "no"),
                (3, false) => OperationResult { conflict: Some(ledger(&operation.id)), ..full(Status::Conflict) },
                (4, _) => named_result(&operation.id, Status::Deferred),
                (5, _) => OperationResult { status: Status::Retry, ..rejected(&operation.id, "busy") },
                (6, _) => OperationResult { first: Some(FirstStatus::Applied), ..full(Status::AlreadyProcessed) },
                _ => full(Status::Merged),
            });
        }
        self.head = head;
        let settled = self.bench().settle(&batch, &response(head, 0, results));
        assert!(matches!(settled, Settled::Done { .. }), "{settled:?}");
    }

    fn give_back(&mut self, how: u8) {
        let Some(batch) = self.batch.take() else { return };
        let reason = "x".to_owned();
        let how = match how {
            0 => How::Ready,
            1 => How::Held,
            2 => How::Wait { reason, message: None },
            3 => How::Charge { reason, message: None },
            _ => How::Fail { reason, message: None },
        };
        let returns: Vec<_> =
            batch.sent.iter().map(|sent| GiveBack { sequence: sent.sequence, how: how.clone() }).collect();
        let bench = self.bench();
        bench.store.give_back(bench.term, &returns, bench.now, &Half).expect("gives back");
    }

    fn act(&mut self, action: u8, which: usize) {
        let bench = self.bench();
        let rows = row::QueueRow::select(&bench.store.conn, "1 ORDER BY sequence", []).expect("readable");
        let Some(row) = rows.get(which % rows.len().max(1)) else { return };
        let now = bench.now;
        // Most of these are refused, because the operation is in another state; then nothing may change.
        let _ = match action {
            0 => bench.store.cancel(&row.id, now),
            1 => bench.store.retry(&row.id, now),
            2 => bench.store.discard(&row.id, now),
            3 => bench.store.resolve_conflict(&row.id, &Resolution::TakeLocal, now),
            _ => bench.store.resolve_conflict(&row.id, &Resolution::TakeRemote, now),
        };
    }
}

fn ledger(id: &str) -> Conflict {
    let conflict = verdicts::conflict(id, "f1", "0", "1", clock(&[("B", 7)]));
    Conflict { their_deleted: id.ends_with('7'), ..conflict }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_store_stays_consistent(steps in prop::collection::vec(step(), 1..60)) {
        let bench = Bench::new().pulled();
        let mut life = Life { bench: Some(bench), batch: None, head: 0, count: 0, last: None };
        for step in &steps {
            life.take(step);
        }
    }
}
