//! What is set for the length of a request's transaction.

use deadpool_postgres::Transaction;

use super::function::Function;
use super::request::Caller;

/// A request, as its function sees it.
pub(super) struct Seen<'a> {
    pub(super) schema: &'a str,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a str,
}

/// As `authenticator`: the settings of the role that is taken on, which `SET ROLE` does not bring.
const ROLE_SETTINGS: &str = "
    select split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
      from pg_catalog.pg_db_role_setting s join pg_catalog.pg_roles r on r.oid = s.setrole,
           unnest(s.setconfig) as setting
     where r.rolname = $1 and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
       and split_part(setting, '=', 1) in (select name from pg_catalog.pg_settings where context = 'user')
     order by s.setdatabase";

const SET: &str = "select set_config($1, $2, true)";

/// Sets all of it, the role last, so that it may not change what was set before.
pub(super) async fn apply(
    transaction: &Transaction<'_>,
    caller: &Caller,
    function: &Function,
    seen: &Seen<'_>,
) -> Result<(), tokio_postgres::Error> {
    let rows = transaction.query(ROLE_SETTINGS, &[&caller.role]).await?;
    let mut settings: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    if let Some(timeout) = &function.statement_timeout {
        settings.push(("statement_timeout".to_owned(), timeout.clone()));
    }
    let claims = caller.claims.to_string();
    let search_path = format!("\"{}\", public, extensions", seen.schema.replace('"', "\"\""));
    for (name, value) in [
        ("search_path", search_path.as_str()),
        ("request.jwt.claims", &claims),
        ("request.method", seen.method),
        ("request.path", seen.path),
        ("request.headers", seen.headers),
        ("role", &caller.role),
    ] {
        settings.push((name.to_owned(), value.to_owned()));
    }
    for (name, value) in &settings {
        transaction.query(SET, &[name, value]).await?;
    }
    Ok(())
}
