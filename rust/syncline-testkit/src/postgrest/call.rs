//! One request, one transaction, one call.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use axum::body::Bytes;
use bytes::BytesMut;
use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::error::ApiError;
use super::function::Function;
use super::request::Caller;
use super::settings::{self, Seen};

/// What a function returned, and what it set for the answer.
pub(super) struct Returned {
    /// JSON text; none for a function that returns nothing.
    pub(super) body: Option<String>,
    pub(super) status: Option<String>,
    pub(super) headers: Option<String>,
}

/// Text for a `json` parameter, as it arrived: what is wrong with it, Postgres says.
#[derive(Debug)]
struct Json(Bytes);

impl ToSql for Json {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }

    to_sql_checked!();
}

/// Calls `function` by `sql` with `body` in a transaction of its own.
pub(super) async fn call(
    client: &mut ClientWrapper,
    caller: &Caller,
    function: &Function,
    sql: &str,
    seen: &Seen<'_>,
    body: Bytes,
) -> Result<Returned, ApiError> {
    let read_only = seen.method != "POST" || !function.volatile;
    let result = within(client, caller, function, seen, read_only, sql, body).await;
    result.map_err(|error| ApiError::from_postgres(&error, caller.authenticated))
}

async fn within(
    client: &mut ClientWrapper,
    caller: &Caller,
    function: &Function,
    seen: &Seen<'_>,
    read_only: bool,
    sql: &str,
    body: Bytes,
) -> Result<Returned, tokio_postgres::Error> {
    let builder = client.build_transaction();
    let transaction = builder.isolation_level(IsolationLevel::ReadCommitted).read_only(read_only).start().await?;
    let returned = main_query(&transaction, caller, function, seen, sql, body).await;
    match returned {
        Ok(returned) => transaction.commit().await.map(|()| returned),
        Err(error) => {
            // The error says more than that the rollback failed too.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

async fn main_query(
    transaction: &Transaction<'_>,
    caller: &Caller,
    function: &Function,
    seen: &Seen<'_>,
    sql: &str,
    body: Bytes,
) -> Result<Returned, tokio_postgres::Error> {
    settings::apply(transaction, caller, function, seen).await?;
    let statement = transaction.prepare_typed(sql, &[Type::JSON]).await?;
    let row = transaction.query_one(&statement, &[&Json(body)]).await?;
    let body: Option<String> = row.get(0);
    Ok(Returned { body: body.filter(|_| !function.returns_void), status: row.get(1), headers: row.get(2) })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The call as SQL. Names are quoted, types come from the catalogue, the body is a parameter.
pub(super) fn statement(function: &Function, schema: &str, name: &str, keys: &BTreeSet<String>) -> String {
    let target = format!("{}.{}", quoted(schema), quoted(name));
    let (call, source) = if function.takes_body() {
        (format!("{target}($1::{})", function.arguments[0].type_name), String::new())
    } else if keys.is_empty() {
        (format!("{target}()"), "(select $1::json) as unused".to_owned())
    } else {
        let (mut given, mut columns) = (String::new(), String::new());
        for argument in function.arguments.iter().filter(|argument| keys.contains(&argument.name)) {
            let comma = if given.is_empty() { "" } else { ", " };
            let column = quoted(&argument.name);
            let _ = write!(given, "{comma}{column} := arguments.{column}");
            let _ = write!(columns, "{comma}{column} {}", argument.type_name);
        }
        (format!("{target}({given})"), format!("json_to_record($1::json) as arguments({columns})"))
    };
    let source = if source.is_empty() { source } else { format!("from {source}") };
    let shape = if function.returns_set { "coalesce(json_agg(value), '[]')" } else { "json_agg(value)->0" };
    format!(
        "with called as (select {call} as value {source})
         select ({shape})::text, nullif(current_setting('response.status', true), ''),
                nullif(current_setting('response.headers', true), '')
           from called"
    )
}
