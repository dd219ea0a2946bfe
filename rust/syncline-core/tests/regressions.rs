//! What random worlds found, each as the smallest life that showed it.

use syncline_core::{NewOperation, OperationStatus};
use syncline_protocol::ProblemCode;
use syncline_testkit::{Fault, World};

/// `Retry-After` was cut to its own length from now at every look, so it lasted until the wall clock had caught up.
#[test]
fn a_clock_that_is_set_back_does_not_prolong_retry_after() {
    let mut world = World::new(18);
    let device = world.device("a");
    device.start().unwrap();
    device.network.next(Fault::problem(ProblemCode::RateLimited).retry_after("20"));
    let pin = device.enqueue(NewOperation::create("pin", "p1", "{}")).unwrap();
    world.advance_secs(5);
    assert_eq!(device.network.sent(), 1);
    device.clock.shift(-3_600_000);
    world.advance_secs(60);
    assert_eq!(device.status(&pin.id), OperationStatus::Completed);
    world.settle(&[&device]);
}
