//! Postgres with every type of a run registered to a table of its own, which somebody else writes too.

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use super::host::HostError;
use crate::postgres::Database;

/// A write past the endpoint, by whoever has the table.
#[derive(Debug, Clone)]
pub struct DirectWrite {
    /// The row's scope.
    pub scope: String,
    /// The type whose table it is.
    pub entity_type: String,
    /// The row's id.
    pub entity_id: String,
    /// The row from now on, as the text of a JSON object by field; none: no row.
    pub row: Option<String>,
}

/// A session that writes the tables.
pub(super) struct Tables {
    client: Client,
    runtime: Runtime,
    types: Vec<String>,
}

impl Tables {
    /// Makes a table for each type: two columns of JSON, and one for all other fields.
    pub(super) fn make(database: &Database, types: &[&str]) -> Result<Self, HostError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(HostError::new)?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await.map_err(HostError::new)?;
            drop(runtime.spawn(connection));
            for name in types {
                let sql = format!(
                    "CREATE TABLE public.{name} (scope text, id text, a jsonb, b jsonb, rest jsonb, clock jsonb, PRIMARY KEY (scope, id));
                     SELECT syncline.register_table('{name}', 'public.{name}', p_rest_column => 'rest')"
                );
                client.batch_execute(&sql).await.map_err(HostError::new)?;
            }
            Ok::<_, HostError>(client)
        })?;
        Ok(Self { client, runtime, types: types.iter().map(|name| (*name).to_owned()).collect() })
    }

    pub(super) fn write(&self, write: &DirectWrite) -> Result<(), HostError> {
        let table = &write.entity_type;
        let done = self.runtime.block_on(async {
            match &write.row {
                Some(row) => {
                    let sql = format!(
                        "INSERT INTO public.{table} AS t (scope, id, a, b, rest)
                         SELECT $1, $2, r -> 'a', r -> 'b', r - 'a' - 'b' FROM (SELECT ($3::text)::jsonb AS r) g
                         ON CONFLICT (scope, id) DO UPDATE SET a = excluded.a, b = excluded.b, rest = excluded.rest"
                    );
                    self.client.execute(&sql, &[&write.scope, &write.entity_id, row]).await
                }
                None => {
                    let sql = format!("DELETE FROM public.{table} WHERE scope = $1 AND id = $2");
                    self.client.execute(&sql, &[&write.scope, &write.entity_id]).await
                }
            }
        });
        done.map(drop).map_err(HostError::new)
    }

    /// The first row of a scope that is not its record, or record without its row; nulls and what is absent are one.
    pub(super) fn disagreement(&self, scope: &str) -> Result<Option<String>, HostError> {
        for name in &self.types {
            let sql = format!(
                "SELECT format('%s %s: row %s %s, record %s %s', '{name}', id, t.record, t.clock, e.payload, e.clock)
                 FROM (SELECT id, syncline.without_nulls(rest || jsonb_build_object('a', a, 'b', b)) AS record, clock FROM public.{name}
                       WHERE scope = $1) t
                 FULL JOIN (SELECT entity_id AS id, payload, clock FROM syncline.entities
                            WHERE scope = $1 AND entity_type = '{name}' AND deleted IS NULL) e USING (id)
                 WHERE t.record IS DISTINCT FROM e.payload OR t.clock IS DISTINCT FROM e.clock LIMIT 1"
            );
            let found = self.runtime.block_on(self.client.query_opt(&sql, &[&scope])).map_err(HostError::new)?;
            if let Some(row) = found {
                return Ok(Some(row.get(0)));
            }
        }
        Ok(None)
    }
}
