//! Which function is meant: what PostgREST's schema cache knows, read anew for each request.

use std::collections::BTreeSet;

use deadpool_postgres::ClientWrapper;

use super::error::ApiError;

/// A function of the exposed schema, as found in the catalogue.
pub(super) struct Function {
    pub(super) arguments: Vec<Argument>,
    pub(super) volatile: bool,
    pub(super) returns_set: bool,
    pub(super) returns_void: bool,
    /// Its own `statement_timeout`, if it sets one.
    pub(super) statement_timeout: Option<String>,
}

pub(super) struct Argument {
    pub(super) name: String,
    /// As SQL.
    pub(super) type_name: String,
    pub(super) has_default: bool,
}

impl Function {
    /// Whether the whole body is its only argument.
    pub(super) fn takes_body(&self) -> bool {
        matches!(&self.arguments[..], [only] if only.name.is_empty() && matches!(only.type_name.as_str(), "json" | "jsonb"))
    }

    fn takes(&self, keys: &BTreeSet<String>) -> bool {
        let named = self.arguments.iter().all(|argument| !argument.name.is_empty());
        let all_known = keys.iter().all(|key| self.arguments.iter().any(|argument| argument.name == *key));
        let given = |argument: &Argument| argument.has_default || keys.contains(&argument.name);
        named && all_known && self.arguments.iter().all(given)
    }
}

const FIND: &str = "
    select p.provolatile = 'v', p.proretset, p.prorettype = 'void'::regtype, p.pronargs::int, p.pronargdefaults::int,
           coalesce(p.proargnames[1:p.pronargs], '{}'),
           array(select format_type(t, null) from unnest(p.proargtypes) with ordinality as a(t, n) order by n),
           (select split_part(c, '=', 2) from unnest(p.proconfig) c where c like 'statement_timeout=%')
      from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
     where n.nspname = $1 and p.proname = $2 and p.prokind = 'f'";

/// The function that takes these arguments; else one that takes the body as it stands.
pub(super) async fn find(
    client: &ClientWrapper,
    schema: &str,
    name: &str,
    keys: &BTreeSet<String>,
    has_body: bool,
) -> Result<Function, ApiError> {
    let rows = client.query(FIND, &[&schema, &name]).await.map_err(|error| ApiError::from_postgres(&error, false))?;
    let (mut named, mut whole) = (Vec::new(), Vec::new());
    for row in rows {
        let (count, defaults): (i32, i32) = (row.get(3), row.get(4));
        let (names, types): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
        let arguments = types.into_iter().enumerate().map(|(at, type_name)| Argument {
            name: names.get(at).cloned().unwrap_or_default(),
            type_name,
            has_default: i32::try_from(at).is_ok_and(|at| at >= count - defaults),
        });
        let function = Function {
            arguments: arguments.collect(),
            volatile: row.get(0),
            returns_set: row.get(1),
            returns_void: row.get(2),
            statement_timeout: row.get(7),
        };
        if function.takes(keys) {
            named.push(function);
        } else if function.takes_body() && has_body {
            whole.push(function);
        }
    }
    let mut found = if named.is_empty() { whole } else { named };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(not_found(schema, name, keys)),
        _ => Err(ApiError::new(300, "PGRST203", "Could not choose the best candidate function")
            .hint("Try renaming the parameters or the function itself in the database")),
    }
}

fn not_found(schema: &str, name: &str, keys: &BTreeSet<String>) -> ApiError {
    let given: Vec<&str> = keys.iter().map(String::as_str).collect();
    let message = match given.len() {
        0 => format!("Could not find the function {schema}.{name} without parameters in the schema cache"),
        _ => format!("Could not find the function {schema}.{name}({}) in the schema cache", given.join(", ")),
    };
    ApiError::new(404, "PGRST202", message).details(format!(
        "Searched for the function {schema}.{name}, by its parameters or with a single unnamed json/jsonb parameter, but no matches were found in the schema cache."
    ))
}
