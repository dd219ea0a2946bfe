//! Planted bugs of the endpoint, each with a vector that catches it: `scripts/test contract`.

use syncline_protocol::teeth::Bug;
use syncline_testkit::contract::teeth::caught_by;
use syncline_testkit::contract::{folder, load};

#[test]
fn list() {
    let vectors = load(&folder()).unwrap();
    for bug in Bug::ALL {
        let caught = caught_by(*bug, &vectors).unwrap();
        if let Some((vector, why)) = caught.first() {
            println!(
                "{:30} {:3} {} | {}",
                bug.name(),
                caught.len(),
                vector.title(),
                why.chars().take(150).collect::<String>()
            );
        }
    }
}
