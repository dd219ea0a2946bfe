//! The write-ahead log is moved into the file by a task of its own, so it does not grow without end.

use syncline_core::NewOperation;
use syncline_testkit::World;

#[test]
fn a_long_run_of_writes_leaves_a_short_log() {
    let mut world = World::new(1);
    let device = world.device("a");
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000));
    let mut written = 0;
    for n in 0..1_000 {
        device.enqueue(NewOperation::create("pin", format!("p{n}"), payload.clone())).unwrap();
        written += 2 * payload.len() as u64; // the queue's row and the replica's
        world.run_until_idle();
    }
    let mut wal = device.path().as_os_str().to_owned();
    wal.push("-wal");
    let length = std::fs::metadata(wal).unwrap().len();
    assert!(length < written / 2, "{length} bytes of log after {written} bytes of rows");
}
