//! The real manager and the real endpoint on the disk.

use std::sync::Arc;

use syncline_core::environment::Environment;
use syncline_core::{Durability, NewOperation, SyncManager};
use syncline_server::SqliteStore;
use syncline_testkit::disk::{Disk, Process};
use syncline_testkit::{MemoryLock, SeededRandom, TestDevice, World};

use crate::{open, text};

fn manager(world: &World, like: &TestDevice, process: &Process, seed: u64) -> syncline_core::Result<SyncManager> {
    let mut config = world.config("a");
    config.database = process.path("a.db");
    config.durability = Durability::Full;
    let environment = Environment {
        clock: Arc::new(like.clock.clone()),
        random: Arc::new(SeededRandom::new(seed)),
        runtime: Arc::new(world.steps.owner()),
        transport: Arc::new(like.network.clone()),
        credentials: Arc::new(like.credentials.clone()),
        lock: Arc::new(MemoryLock::default()),
        vfs: Some(Disk::VFS.into()),
    };
    SyncManager::open(config, environment)
}

#[test]
fn a_manager_has_what_it_acknowledged_after_a_power_loss() {
    let mut world = World::new(1);
    let like = world.device("like");
    for seed in 0..60 {
        let disk = Disk::new(seed);
        let process = disk.process();
        let device = manager(&world, &like, &process, seed * 2).expect("the manager opens");
        process.die_after(seed * 7);
        let mut acknowledged = Vec::new();
        for number in 0..400 {
            let create = NewOperation::create("pin", format!("p{number}"), format!(r#"{{"title":"Leak {number}"}}"#));
            match device.enqueue(create) {
                Ok(operation) => acknowledged.push(operation.id),
                Err(_) => break,
            }
        }
        assert!(process.is_dead() || acknowledged.len() == 400);
        disk.lose_power();
        drop(device);

        let process = disk.process();
        let device = manager(&world, &like, &process, seed * 2 + 1).expect("the manager opens again");
        for id in &acknowledged {
            assert!(device.operation(id).unwrap().is_some(), "seed {seed}: {id} of {} is gone", acknowledged.len());
        }
        assert_eq!(text(&open(&process).unwrap(), "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_manager_killed_while_it_opens_for_the_first_time_opens_again() {
    let mut world = World::new(1);
    let like = world.device("like");
    let calls = (0..1000).find(|calls| {
        let disk = Disk::new(*calls);
        let process = disk.process();
        process.die_after(*calls);
        let died = manager(&world, &like, &process, 1).is_err();
        disk.lose_power();
        manager(&world, &like, &disk.process(), 2).expect("the manager opens again");
        !died
    });
    assert!(calls.expect("it lives in the end") > 20);
}

#[test]
fn a_manager_moves_a_grown_wal_into_the_file() {
    let mut world = World::new(1);
    let like = world.device("like");
    let disk = Disk::new(1);
    let process = disk.process();
    let device = manager(&world, &like, &process, 1).expect("the manager opens");
    let other = open(&process).unwrap();
    let moved = || other.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(2)).unwrap();
    let enqueue = |from: u32| {
        for number in from..from + 256 {
            let payload = format!(r#"{{"title":"{}"}}"#, "x".repeat(10_000));
            device.enqueue(NewOperation::create("pin", format!("p{number}"), payload)).expect("it is enqueued");
        }
        world.run_until_idle();
    };
    assert_eq!(moved(), 0);
    enqueue(0);
    let first = moved();
    assert!(first >= 1024, "{first} pages were moved");
    for number in 256..320 {
        device.enqueue(NewOperation::create("pin", format!("p{number}"), "{}")).expect("it is enqueued");
    }
    world.run_until_idle();
    assert_eq!(moved(), 0, "a WAL that was moved is left alone until it has grown again");
}

#[test]
fn the_endpoints_store_opens_on_the_disk() {
    let disk = Disk::new(1);
    let process = disk.process();
    drop(SqliteStore::open(&process.path("server.db"), Some(Disk::VFS)).expect("it opens"));
    disk.lose_power();
    SqliteStore::open(&disk.process().path("server.db"), Some(Disk::VFS)).expect("it opens again");
}
