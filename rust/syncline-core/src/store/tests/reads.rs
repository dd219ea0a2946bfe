use super::*;
use crate::query::{Comparison, ListQuery, OperationFilter, SyncStatus};
use serde_json::json;

fn filled() -> (Bench, Reader) {
    let mut bench = Bench::with(|options| {
        options.entity_types = settings(|pin| pin.indexed_paths = vec!["$.title".into(), "$.n".into()]);
    })
    .pulled();
    for n in 0..7 {
        let title = if n == 6 { String::new() } else { format!(r#","title":"Leak {}""#, n % 3) };
        bench.create(&format!("e{n}"), &format!(r#"{{"n":{n},"nested":{{"list":[{}]}}{title}}}"#, n * 2));
    }
    bench.delete("e5");
    let reader = Reader::open(&bench.store.options).unwrap();
    (bench, reader)
}

fn ids(reader: &Reader, query: &ListQuery) -> Vec<String> {
    reader.list(query).unwrap().entities.into_iter().map(|entity| entity.entity_id).collect()
}

#[test]
fn filters_compare_what_json_holds() {
    let (_bench, reader) = filled();
    let all = ListQuery::new("pin");
    let find = |path: &str, comparison| ids(&reader, &all.clone().filter(path, comparison));
    assert_eq!(ids(&reader, &all), ["e0", "e1", "e2", "e3", "e4", "e6"], "without the deleted one");
    assert_eq!(find("$.n", Comparison::Equals(json!(3))), ["e3"]);
    assert_eq!(find("$.n", Comparison::Greater(json!(3.5))), ["e4", "e6"]);
    assert_eq!(find("$.n", Comparison::LessOrEqual(json!(1))), ["e0", "e1"]);
    assert_eq!(find("$.nested.list[0]", Comparison::In(vec![json!(2), json!(8)])), ["e1", "e4"]);
    assert_eq!(find("$.title", Comparison::Like("leak 1".into())), ["e1", "e4"]);
    assert_eq!(find("$.title", Comparison::Missing), ["e6"]);
    assert_eq!(find("$.title", Comparison::NotEquals(json!("Leak 0"))), ["e1", "e2", "e4", "e6"]);
    assert_eq!(find("$.title", Comparison::Equals(json!("'; DROP TABLE entities; --"))), Vec::<String>::new());
    assert!(reader.list(&ListQuery::new("pin").filter("$.a'b", Comparison::Missing)).is_err());
    assert!(reader.list(&ListQuery::new("pin").filter("$.n", Comparison::Equals(json!([1])))).is_err());
    assert!(reader.list(&ListQuery { limit: 0, ..ListQuery::new("pin") }).is_err());
    assert!(reader.list(&ListQuery { after: Some("x".into()), ..ListQuery::new("pin") }).is_err());
}

#[test]
fn pages_join_without_gap_or_overlap_in_every_order() {
    let (_bench, reader) = filled();
    for order in [None, Some("$.title"), Some("$.n"), Some("$.nowhere")] {
        for descending in [false, true] {
            let mut query =
                ListQuery { order_by: order.map(str::to_owned), descending, limit: 100, ..ListQuery::new("pin") };
            let whole = ids(&reader, &query);
            assert_eq!(whole.len(), 6);
            query.limit = 2;
            let mut joined = Vec::new();
            loop {
                let page = reader.list(&query).unwrap();
                joined.extend(page.entities.into_iter().map(|entity| entity.entity_id));
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            assert_eq!(joined, whole, "{order:?} {descending}");
        }
    }
}

#[test]
fn a_declared_path_is_found_by_its_index_and_an_undeclared_one_is_dropped() {
    let (bench, _reader) = filled();
    let plan: String = bench
        .store
        .conn
        .query_row(
            "EXPLAIN QUERY PLAN SELECT entity FROM entities WHERE entity_type = 'pin' AND current IS NOT NULL
             AND json_extract(current, '$.\"title\"') = 'x' ORDER BY entity",
            [],
            |row| row.get(3),
        )
        .unwrap();
    assert!(plan.contains("entities_path_pin_"), "{plan}");
    let mut options = bench.store.options.clone();
    options.entity_types = settings(|pin| pin.indexed_paths = vec!["$.n".into()]);
    let store = Store::open(options, "A", bench.now).unwrap();
    let indexes: u64 = store
        .conn
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'entities_path_%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(indexes, 1);
}

#[test]
fn the_change_feed_gives_each_entity_once_and_survives_a_restart() {
    let (mut bench, reader) = filled();
    let first = reader.changes_since(0, 4).unwrap();
    assert!(first.has_more);
    let rest = reader.changes_since(first.cursor, 100).unwrap();
    assert_eq!(first.entities.len() + rest.entities.len(), 7);
    let gone: Vec<_> = rest.entities.iter().filter(|entity| entity.value.is_none()).collect();
    assert_eq!(gone.len(), 1, "a deletion is a change too");
    bench.update("e1", r#"{"n":1}"#);
    assert!(reader.changes_since(rest.cursor, 100).unwrap().entities.is_empty(), "the same value is no change");
    bench.update("e1", r#"{"n":100}"#);
    drop(reader);
    let bench = bench.reopen();
    let reader = Reader::open(&bench.store.options).unwrap();
    let news = reader.changes_since(rest.cursor, 100).unwrap();
    assert_eq!(news.entities.iter().map(|entity| entity.entity_id.as_str()).collect::<Vec<_>>(), ["e1"]);
}

#[test]
fn the_sync_status_is_the_worst_of_the_lane() {
    let mut bench = Bench::with(|options| options.entity_types = settings(|pin| pin.coalesce = false)).pulled();
    let reader = Reader::open(&bench.store.options).unwrap();
    let status = || reader.get("pin", "e").unwrap().unwrap().sync_status;
    assert_eq!(reader.get("pin", "e").unwrap(), None);
    let one = bench.create("e", "{}");
    assert_eq!(status(), SyncStatus::Pending);
    bench.claim(&[1]);
    bench.update("e", "{}");
    assert_eq!(status(), SyncStatus::Syncing);
    let how = How::Fail { reason: "x".into(), message: Some("No.".into()) };
    bench.store.give_back(bench.term, &[GiveBack { sequence: 1, how }], bench.now, &Half).unwrap();
    assert_eq!(status(), SyncStatus::Failed);
    let failed = reader.get("pin", "e").unwrap().unwrap();
    assert_eq!((failed.failure_reason.as_deref(), failed.last_failed_sync_at), (Some("No."), Some(bench.now)));
    bench.store.retry(&one.id, bench.now).unwrap();
    bench.deliver(&[1, 2], 1, Vec::new());
    assert_eq!(status(), SyncStatus::Synced);
    assert_eq!(reader.get("pin", "e").unwrap().unwrap().last_synced_at, Some(bench.now));
}

#[test]
fn operations_are_listed_by_state_and_entity() {
    let (bench, reader) = filled();
    let pending = OperationFilter { statuses: vec![OperationStatus::Pending], ..OperationFilter::default() };
    assert_eq!(reader.operations(&pending).unwrap().len(), 6);
    let of_e5 = OperationFilter { entity: Some(("pin".into(), "e5".into())), ..OperationFilter::default() };
    let both = reader.operations(&of_e5).unwrap();
    assert_eq!(both.iter().map(|operation| operation.status).collect::<Vec<_>>(), [OperationStatus::Cancelled; 2]);
    let after = OperationFilter { after: 7, ..OperationFilter::default() };
    assert_eq!(reader.operations(&after).unwrap().len(), 1);
    let folded = reader.survivor(&both[1].id).unwrap().unwrap();
    assert_eq!(folded.sequence, 6);
    assert_eq!(reader.operation("unknown").unwrap(), None);
    drop(bench);
}
