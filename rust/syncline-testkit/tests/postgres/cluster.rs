//! Postgres as the endpoint: the cluster of the harness, and the endpoint over it.
#![cfg(unix)]

use syncline_server::{Claims, Concurrent, PostgresConfig, PostgresEndpoint, Random, Request};
use syncline_testkit::postgres::{Cluster, Durability};

struct NoRandom;

impl Random for NoRandom {
    fn fill(&mut self, _: &mut [u8]) {
        unreachable!("the database draws its own ids")
    }
}

#[test]
fn a_cluster_starts_stops_and_serves() {
    let mut cluster = Cluster::start(Durability::None);
    let database = cluster.database("first");
    assert_eq!(cluster.sql("first", "SELECT count(*) FROM syncline.settings"), "1");
    let version = cluster.command("postgres").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let runs = cluster.sql("first", "SHOW server_version");
    assert!(version.contains(runs.split(' ').next().unwrap()), "{version} is meant, {runs} runs");
    let endpoint = PostgresEndpoint::open(&PostgresConfig::new(database.url()), true).unwrap();
    let claims = Claims::new("ada".into(), ["team".to_owned()].into());
    let now = "2026-05-01T12:00:00Z".parse().unwrap();
    let answer = Concurrent::handle(&endpoint, Request::Push(b"{"), &claims, now, &mut NoRandom);
    assert_eq!((answer.status, answer.problem.unwrap().field.as_deref()), (400, Some("$")));
    cluster.stop();
    let answer = Concurrent::handle(&endpoint, Request::Push(b"{}"), &claims, now, &mut NoRandom);
    assert_eq!(answer.problem.unwrap().code, "unavailable");
    cluster.resume();
    assert_eq!(cluster.sql("first", "SELECT count(*) FROM syncline.settings"), "1");
}
