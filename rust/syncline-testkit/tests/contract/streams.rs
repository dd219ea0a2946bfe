//! A few random streams, of which `make differential` sends many.

use syncline_testkit::contract::{EmbeddedHost, Host};
use syncline_testkit::differential::{run, run_steps, types};

const STREAMS: u64 = 60;

fn hosts() -> Vec<Box<dyn Host>> {
    let mut hosts: Vec<Box<dyn Host>> = vec![Box::new(EmbeddedHost::new().unwrap())];
    hosts[0].reset(&types()).unwrap();
    hosts
}

#[test]
fn the_embedded_endpoint_answers_random_streams_as_the_model_does() {
    let mut hosts = hosts();
    for seed in 1..=STREAMS {
        let stream = run(&mut hosts, seed).unwrap_or_else(|ended| panic!("seed {seed}: {ended:?}"));
        assert!(stream.operations >= 20 && stream.pushes >= 5 && stream.devices >= 3, "seed {seed}");
    }
}

#[test]
fn a_stream_is_one_when_its_steps_are_sent_alone() {
    let whole = run(&mut hosts(), 7).unwrap();
    let again = run_steps(&mut hosts(), 7, &whole.steps).unwrap();
    assert_eq!((whole.operations, whole.words), (again.operations, again.words));
    run_steps(&mut hosts(), 7, &whole.steps[3..6]).unwrap();
}
