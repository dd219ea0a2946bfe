//! A private Postgres cluster for tests: made in a folder of its own, reached through a socket there, ended with its owner.
//!
//! ```no_run
//! use syncline_testkit::postgres::{Cluster, Durability};
//!
//! let cluster = Cluster::start(Durability::None);
//! let database = cluster.database("contract"); // with Syncline's migrations
//! println!("{}", database.url()); // for `PostgresConfig::new`, tokio-postgres, psql
//! ```
//!
//! The binaries are found by `SYNCLINE_PG_BIN`, `pg_config`, or where Debian puts them. Postgres refuses to run as root: then
//! it runs as `postgres`, or else as `nobody`. A shell watches the pipe to this process, and when it closes stops the cluster and
//! removes its files, so that nothing outlives a test that was killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use syncline_server::{PostgresConfig, PostgresEndpoint};
use tempfile::TempDir;

/// Whether what was committed survives the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It does not: for tests of answers.
    None,
    /// It does: for tests of speed and of kills.
    Full,
}

/// Makes a cluster where there is none, starts it, says `ready`, and stops it when standard input ends. Who stops it writes a line
/// first; without one, nobody is there any more to remove the folder.
const WATCH: &str = r#"
trap '' PIPE
test -e "$2/PG_VERSION" || "$1/initdb" --pgdata "$2" --username "$4" --auth trust --encoding UTF8 --locale C --no-sync >/dev/null || exit 1
"$1/pg_ctl" --pgdata "$2" --log "$2/log" --options "$3" --wait --timeout 120 start >/dev/null 2>&1 || { cat "$2/log" >&2; exit 1; }
echo ready
read -r word
"$1/pg_ctl" --pgdata "$2" --mode immediate --wait stop >/dev/null 2>&1
test -n "$word" || rm -rf "$PWD" 2>/dev/null
"#;
const SUPERUSER: &str = "postgres";
const TEMPLATE: &str = "syncline_template";

/// A running cluster. Dropping it stops it and removes its files.
pub struct Cluster {
    bin: PathBuf,
    folder: TempDir,
    user: Option<(u32, u32)>,
    options: String,
    watch: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// With what is missing, or what the cluster wrote into its log.
    pub fn start(durability: Durability) -> Self {
        Self::start_with(durability, &[])
    }

    /// The same with settings, as `work_mem=8MB`.
    ///
    /// # Panics
    /// See [`Cluster::start`].
    pub fn start_with(durability: Durability, settings: &[&str]) -> Self {
        Self::start_of(binaries(), durability, settings)
    }

    /// The same of the version whose binaries are in a folder.
    ///
    /// # Panics
    /// See [`Cluster::start`].
    pub fn start_of(binaries: PathBuf, durability: Durability, settings: &[&str]) -> Self {
        let mut cluster = Self::prepare(binaries, durability, settings);
        cluster.resume();
        cluster
    }

    /// A standby that follows this cluster, asynchronously, until it is promoted.
    ///
    /// # Panics
    /// If the copy cannot be made or started.
    pub fn standby(&self, durability: Durability) -> Self {
        let mut standby = Self::prepare(self.bin.clone(), durability, &[]);
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync", "--username", SUPERUSER, "--host"]);
        succeed(copy.arg(self.socket()).arg("--pgdata").arg(standby.data()));
        standby.resume();
        standby
    }

    /// Makes a standby a cluster of its own, on a timeline of its own.
    ///
    /// # Panics
    /// If it is none.
    pub fn promote(&self) {
        succeed(self.command("pg_ctl").args(["promote", "--wait", "--pgdata"]).arg(self.data()));
    }

    /// A folder with nothing in it, and how a cluster in it would be started.
    fn prepare(bin: PathBuf, durability: Durability, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("syncline-pg-").tempdir().expect("a folder can be made");
        let user = unprivileged(folder.path());
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).expect("root may give folders away");
        }
        let mut options = format!("-k {} -c listen_addresses='' -c max_connections=60", folder.path().display());
        if durability == Durability::None {
            options += " -c fsync=off -c synchronous_commit=off -c full_page_writes=off";
        }
        for setting in settings {
            options += &format!(" -c {setting}");
        }
        Self { bin, folder, user, options, watch: None }
    }

    /// Starts it again, after [`Cluster::stop`] or [`Cluster::kill`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn resume(&mut self) {
        let mut command = self.prepared(Command::new("sh"));
        command.args(["-c", WATCH, "sh"]).arg(&self.bin).arg(self.data()).arg(&self.options).arg(SUPERUSER);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut watch = command.spawn().expect("sh runs");
        let mut line = String::new();
        let read = BufReader::new(watch.stdout.take().expect("it is piped")).read_line(&mut line);
        assert!(read.is_ok() && line.trim() == "ready", "the cluster does not start, see above");
        self.watch = Some(watch);
    }

    /// Stops it as a power failure would, but for what the system has not yet written.
    pub fn stop(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            let told = watch.stdin.take().map(|mut stdin| stdin.write_all(b"stop\n"));
            drop(told);
            let _ = watch.wait();
        }
    }

    /// Kills every process of it with SIGKILL, all at once: none answers, commits or tidies up any more.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let postmaster = text.lines().next().expect("the first line is the pid").to_owned();
        // One that stands still starts nobody any more, and lets nobody know that it is gone.
        self.signal("STOP", &postmaster);
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        self.signal("KILL", &format!("{} {postmaster}", children.unwrap_or_default()));
        // Waits until they are gone.
        self.stop();
    }

    /// Stops a process of the server where it stands, as `walsender`, until [`Cluster::thaw`]. See `backend_type` of
    /// `pg_stat_activity`.
    ///
    /// # Panics
    /// If there is none.
    pub fn freeze(&self, process: &str) {
        self.signal("STOP", &self.processes(process));
    }

    /// Lets a process go on.
    ///
    /// # Panics
    /// If there is none.
    pub fn thaw(&self, process: &str) {
        self.signal("CONT", &self.processes(process));
    }

    fn processes(&self, kind: &str) -> String {
        let asked = format!("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = '{kind}'");
        let processes = self.sql("postgres", &asked);
        assert!(!processes.is_empty(), "there is no {kind}");
        processes
    }

    fn signal(&self, name: &str, processes: &str) {
        succeed(self.prepared(Command::new("sh")).args(["-c", &format!("kill -{name} {processes}")]));
    }

    /// Makes a database with Syncline's migrations. Names are unique in a cluster.
    ///
    /// # Panics
    /// If a migration fails.
    pub fn database(&self, name: &str) -> Database {
        if self.sql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{TEMPLATE}'")).is_empty() {
            self.sql("postgres", &format!("CREATE DATABASE {TEMPLATE}"));
            let config = PostgresConfig::new(self.existing(TEMPLATE).url());
            let opened = PostgresEndpoint::open(&config, true);
            drop(opened.unwrap_or_else(|error| panic!("{error}")));
            // The template may be copied only while nobody is connected to it.
            self.sql("postgres", &format!("ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false"));
            self.sql(
                "postgres",
                &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{TEMPLATE}'"),
            );
        }
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE {TEMPLATE}"));
        self.existing(name)
    }

    /// Makes a database with nothing in it.
    ///
    /// # Panics
    /// If there is one of this name.
    pub fn empty_database(&self, name: &str) -> Database {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.existing(name)
    }

    /// What `pg_dump` makes of a database.
    ///
    /// # Panics
    /// With its message.
    pub fn dump(&self, database: &str) -> String {
        let mut command = self.command("pg_dump");
        let done =
            command.args(["-U", SUPERUSER, "-h"]).arg(self.socket()).arg(database).output().expect("pg_dump runs");
        assert!(done.status.success(), "pg_dump: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("a database of ours is UTF-8")
    }

    /// Makes a database of a dump, in one transaction, and first the roles that the migrations make: a dump names them only.
    ///
    /// # Panics
    /// With the database's message.
    pub fn restore(&self, name: &str, dump: &str) -> Database {
        for role in ["anon", "authenticated", "service_role", "syncline_server"] {
            let make = format!("CREATE ROLE {role} NOLOGIN NOINHERIT");
            self.sql(
                "postgres",
                &format!("DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN {make}; END IF; END $$"),
            );
        }
        let database = self.empty_database(name);
        self.sql(name, &format!("BEGIN;\n{dump}\nCOMMIT;"));
        database
    }

    /// A database that is there already: of a standby, its primary's.
    pub fn existing(&self, name: &str) -> Database {
        Database { url: format!("host={} user={SUPERUSER} dbname={name}", self.folder.path().display()) }
    }

    /// Runs statements with psql, and gives what they print, unaligned, without headings.
    ///
    /// # Panics
    /// With the database's message, if one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-qXAt", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", database, "-U", SUPERUSER, "-h"]);
        let mut child = command
            .arg(self.folder.path())
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(statements.as_bytes()).expect("psql reads");
        drop(stdin);
        let done = child.wait_with_output().expect("psql ends");
        assert!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }

    /// The folder of its socket, for `PGHOST`.
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command of this Postgres, run as the cluster's user.
    pub fn command(&self, name: &str) -> Command {
        let programs = [self.bin.join(name)].into_iter().chain(debian().map(|folder| folder.join(name)));
        // Where there is the server alone, the programs around it are those of another version.
        let program = programs.into_iter().find(|program| program.exists()).unwrap_or_else(|| PathBuf::from(name));
        self.prepared(Command::new(program))
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env("LC_ALL", "C").env_remove("PGOPTIONS").stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A database of a [`Cluster`].
#[derive(Debug, Clone)]
pub struct Database {
    url: String,
}

impl Database {
    /// One of another cluster, for whoever may do everything there.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    /// Where it is, as its superuser.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn succeed(command: &mut Command) {
    let done = command.output().expect("Postgres's own commands run");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The folder of `initdb`, `pg_ctl` and the others. Where it is said which, no other will do.
pub fn find_binaries() -> Option<PathBuf> {
    let is_whole = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    if let Some(said) = std::env::var_os("SYNCLINE_PG_BIN") {
        return Some(PathBuf::from(said)).filter(is_whole);
    }
    let configured = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    };
    debian().chain(std::iter::once_with(configured).flatten()).find(is_whole)
}

/// Those of the version that tests are run on.
fn binaries() -> PathBuf {
    find_binaries().expect("PostgreSQL 15 or later: install it (Debian: apt install postgresql-15)")
}

/// Where Debian puts the binaries of each version.
pub fn debian() -> impl Iterator<Item = PathBuf> {
    (15..=18).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")))
}

/// Whom Postgres runs as, if we are root: user and group.
fn unprivileged(own: &Path) -> Option<(u32, u32)> {
    let we_are_root = std::fs::metadata(own).is_ok_and(|folder| folder.uid() == 0);
    if !we_are_root {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}
