//! Random lives of a database on a disk that loses power, and death before every single call.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, params};
use syncline_testkit::disk::{Counts, Disk, Process};

use crate::{number, open};

type Rows = BTreeMap<i64, Vec<u8>>;
/// A row, and its value; none deletes it.
type Write = (i64, Option<Vec<u8>>);
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Spoils what makes a commit durable.
#[derive(Clone, Copy, PartialEq)]
enum Spoilt {
    Nothing,
    Synchronous,
    Disk,
}

fn rows(connection: &Connection) -> rusqlite::Result<Rows> {
    connection.prepare("SELECT id, value FROM t")?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// A transaction of a few writes. Gives what the table holds once it is committed.
fn plan(random: &mut StdRng, before: &Rows) -> (Vec<Write>, Rows) {
    let mut after = before.clone();
    let writes: Vec<_> = (0..random.random_range(1..6))
        .map(|_| {
            let size = if random.random_bool(0.2) { random.random_range(0..9000) } else { random.random_range(0..300) };
            let value = random.random_bool(0.8).then(|| vec![random.random::<u8>(); size]);
            (random.random_range(0..40), value)
        })
        .collect();
    for (id, value) in &writes {
        match value {
            Some(value) => after.insert(*id, value.clone()),
            None => after.remove(id),
        };
    }
    (writes, after)
}

fn commit(connection: &Connection, writes: &[Write]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for (id, value) in writes {
        match value {
            Some(value) => connection.execute("REPLACE INTO t VALUES (?1, ?2)", params![id, value])?,
            None => connection.execute("DELETE FROM t WHERE id = ?1", [id])?,
        };
    }
    connection.execute_batch("COMMIT")
}

fn checkpoint(connection: &Connection, random: &mut StdRng) -> rusqlite::Result<()> {
    let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][random.random_range(0..4)];
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

fn connect(process: &Process, spoilt: Spoilt) -> rusqlite::Result<Connection> {
    let connection = open(process)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")?;
    connection.execute_batch("CREATE INDEX IF NOT EXISTS by_value ON t (substr(value, 1, 20))")?;
    if spoilt == Spoilt::Synchronous {
        connection.pragma_update(None, "synchronous", "OFF")?;
    }
    Ok(connection)
}

/// Writes through two processes until the lights go out: before a call of one of them, or between two transactions.
fn until_power_is_lost(disk: &Disk, random: &mut StdRng, committed: &mut Vec<Rows>, spoilt: Spoilt) -> Outcome<()> {
    let processes = [disk.process(), disk.process()];
    let first = connect(&processes[0], spoilt)?;
    let connections = [first, connect(&processes[1], spoilt)?];
    let found = rows(&connections[1])?;
    if !committed.contains(&found) {
        return Err(format!("{} rows found, {} were committed", found.len(), committed[0].len()).into());
    }
    if crate::text(&connections[0], "PRAGMA integrity_check") != "ok" {
        return Err("not intact".into());
    }
    *committed = vec![found];
    processes[random.random_range(0..2)].die_after(random.random_range(0..150));
    for _ in 0..random.random_range(1..30) {
        let connection = &connections[random.random_range(0..2)];
        if random.random_bool(0.15) {
            if checkpoint(connection, random).is_err() {
                break;
            }
            continue;
        }
        let (writes, after) = plan(random, &committed[0]);
        match commit(connection, &writes) {
            Ok(()) => *committed = vec![after],
            Err(_) => {
                committed.push(after); // the commit may be in the WAL all the same
                break;
            }
        }
    }
    disk.lose_power();
    Ok(())
}

/// A few power losses in a row. Gives all that was found, and what the disk counted.
fn life(seed: u64, spoilt: Spoilt) -> Outcome<(Vec<Vec<Rows>>, Counts)> {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = Disk::new(seed);
    drop(connect(&disk.process(), Spoilt::Nothing)?);
    disk.set_lying(spoilt == Spoilt::Disk);
    let (mut committed, mut found) = (vec![Rows::new()], Vec::new());
    for _ in 0..4 {
        until_power_is_lost(&disk, &mut random, &mut committed, spoilt)?;
        found.push(committed.clone());
    }
    Ok((found, disk.counts()))
}

#[test]
fn what_was_committed_survives_every_power_loss() {
    let mut torn = 0;
    for seed in 0..2000 {
        let (_, counts) = life(seed, Spoilt::Nothing).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(counts.power_losses, 4);
        torn += counts.torn;
    }
    assert!(torn > 2000, "only {torn} sectors were torn");
}

#[test]
fn without_syncs_the_same_lives_lose_something() {
    for spoilt in [Spoilt::Synchronous, Spoilt::Disk] {
        let lost = (0..20).filter(|seed| life(*seed, spoilt).is_err()).count();
        assert!(lost >= 5, "{lost} of 20 seeds lost anything");
    }
}

#[test]
fn one_seed_is_one_life() {
    for seed in 0..50 {
        assert_eq!(life(seed, Spoilt::Nothing).unwrap(), life(seed, Spoilt::Nothing).unwrap(), "seed {seed}");
    }
}

/// One transaction and one checkpoint by a process that dies before its `calls`-th call. False if it lived.
fn die_at(calls: u64, power: bool, witness: bool) -> bool {
    let disk = Disk::new(calls);
    let mut random = StdRng::seed_from_u64(7);
    drop(connect(&disk.process(), Spoilt::Nothing).unwrap());
    let (dying, other) = (disk.process(), disk.process());
    let connection = connect(&dying, Spoilt::Nothing).unwrap();
    let other = witness.then(|| connect(&other, Spoilt::Nothing).unwrap());
    let (writes, before) = plan(&mut random, &Rows::new());
    commit(&connection, &writes).unwrap();
    let (writes, after) = plan(&mut random, &before);
    dying.die_after(calls);
    let committed = commit(&connection, &writes);
    let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    drop(connection);
    let died = dying.is_dead();
    if power {
        disk.lose_power();
    }
    let survivor = other.filter(|_| !power).unwrap_or_else(|| connect(&disk.process(), Spoilt::Nothing).unwrap());
    let found = rows(&survivor).unwrap();
    assert!(found == after || (found == before && committed.is_err()), "death before call {calls}");
    assert_eq!(crate::text(&survivor, "PRAGMA integrity_check"), "ok");
    commit(&survivor, &[(99, Some(vec![]))]).expect("the file can be written again");
    assert_eq!(number(&survivor, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    assert!(died || moved.is_ok_and(|busy| busy == 0));
    died
}

#[test]
fn death_before_any_call_leaves_old_or_new() {
    for (power, witness) in [(false, false), (false, true), (true, false)] {
        let calls = (0..1000).find(|calls| !die_at(*calls, power, witness)).expect("it lives in the end");
        assert!(calls > 10, "{calls} calls");
    }
}
