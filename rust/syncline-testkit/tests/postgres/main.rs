//! The endpoint on Postgres: the golden exchanges, the vectors of `contract/`, and what only a database can get wrong. Needs
//! PostgreSQL 15 or later; `scripts/test` has a part of its own for it.
#![cfg(unix)]

mod claims;
mod cluster;
mod direct;
mod golden;
mod one_scope;
mod pgtap;
mod plans;
mod shards;
mod tables;
mod teeth;
mod together;
mod upgrade;
mod vectors;

use std::sync::{LazyLock, Mutex};

use syncline_testkit::postgres::{Cluster, Database, Durability};

/// One cluster for all tests of this program: it stops when the program ends, as its shell watches.
static CLUSTER: LazyLock<Mutex<Cluster>> = LazyLock::new(|| Mutex::new(Cluster::start(Durability::None)));

/// A database of one's own.
fn database(name: &str) -> Database {
    CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).database(name)
}

/// Runs statements as the superuser.
fn sql(database: &str, statements: &str) -> String {
    CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).sql(database, statements)
}

/// Plants a slip in a function of the database: something else in the place of a part.
fn plant(database: &str, function: &str, part: &str, instead: &str) {
    sql(
        database,
        &format!(
            "DO $do$ DECLARE v_text text := pg_get_functiondef('syncline.{function}'::regproc); BEGIN
               IF strpos(v_text, $part${part}$part$) = 0 THEN RAISE 'there is no such part'; END IF;
               EXECUTE replace(v_text, $part${part}$part$, $part${instead}$part$);
             END $do$"
        ),
    );
}

/// Where its socket is.
fn socket() -> std::path::PathBuf {
    CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).socket().to_owned()
}

/// A transaction of somebody else that has run a statement and is not over, until it is dropped.
struct Held(std::process::Child);

fn hold(database: &str, statement: &str) -> Held {
    use std::io::{BufRead as _, Write as _};
    let mut command = CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).command("psql");
    command.args(["-qXAt", "-U", "postgres", "-d", database, "-h"]).arg(socket());
    let mut child =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("psql runs");
    writeln!(child.stdin.as_mut().unwrap(), "BEGIN;\n{statement};\n\\echo held").unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    Held(child)
}

impl Held {
    /// Commits it.
    fn commit(mut self) {
        use std::io::Write as _;
        writeln!(self.0.stdin.as_mut().unwrap(), "COMMIT;").unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
