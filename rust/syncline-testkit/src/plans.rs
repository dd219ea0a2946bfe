//! The plans that Postgres really used, those of statements within functions too: `auto_explain` tells them as notices.

use std::future::poll_fn;

use serde_json::Value;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::postgres::Database;

const TELL: &str = "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;
    SET auto_explain.log_buffers = on; SET auto_explain.log_nested_statements = on; SET auto_explain.log_format = 'json';
    SET client_min_messages = 'log'";

/// Runs statements one after the other in one session, and gives the plan of everything that was executed: objects as
/// `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)` prints them, with the `Query Text`.
///
/// # Panics
/// With the database's message, if a statement fails.
pub fn plans(database: &Database, statements: &[String]) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, mut connection) = tokio_postgres::connect(database.url(), NoTls).await.expect("the cluster runs");
        let listening = async {
            let mut told = Vec::new();
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    told.push(notice.message().to_owned());
                }
            }
            told
        };
        // The client ends with the last statement, and so does the connection.
        let asking = async move {
            for statement in [&[TELL.to_owned()], statements].concat() {
                client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{error:?}: {statement}"));
            }
        };
        let (told, ()) = tokio::join!(listening, asking);
        told.iter().filter_map(|text| serde_json::from_str(&text[text.find('{')?..]).ok()).collect()
    })
}

/// The nodes of a plan that read a table, in order.
pub fn scans<'p>(plan: &'p Value, table: &str) -> Vec<&'p Value> {
    let own = (plan["Relation Name"] == table && !plan["Node Type"].as_str().unwrap_or_default().starts_with("Modify"))
        .then_some(plan);
    let below = [&plan["Plan"]].into_iter().chain(plan["Plans"].as_array().into_iter().flatten());
    own.into_iter().chain(below.filter(|below| below.is_object()).flat_map(|below| scans(below, table))).collect()
}

/// The statements that give a new scope a history of so many records, faster than pushes would.
pub fn history(scope: &str, records: usize) -> Vec<String> {
    vec![
        pull(scope, None, 1),
        format!(
            "INSERT INTO syncline.entities (scope, entity_type, entity_id, version, payload, fields, created, clock, changed_at, bytes, stored_at)
             SELECT '{scope}', 'pin', 'e' || n, n, jsonb_build_object('n', n, 'note', 'Checked the valve and the gauge.'), '{{}}',
               jsonb_build_array('d', n, 0), jsonb_build_object('d', n), 0, 60, 0
             FROM generate_series(1, {records}) n"
        ),
        format!("UPDATE syncline.scopes SET head = {records} WHERE scope = '{scope}'"),
    ]
}

/// The statement that pulls what came after a version (none: from the start), as `syncline serve` asks.
pub fn pull(scope: &str, after: Option<usize>, limit: usize) -> String {
    let cursor = after.map_or("NULL".to_owned(), |after| {
        format!(
            "(SELECT syncline.cursor_text(s.scope, s, {after}, NULL) FROM syncline.scopes s WHERE s.scope = '{scope}')"
        )
    });
    format!(
        "SELECT syncline.serve('pull', jsonb_build_object('protocol', 1, 'user_id', 'ada', 'scope', '{scope}', 'device_id', 'reader',
           'limit', {limit}, 'cursor', {cursor})::text, jsonb_build_object('sub', 'ada', 'scope', '{scope}')::text)"
    )
}
