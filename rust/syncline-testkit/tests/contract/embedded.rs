use syncline_testkit::contract::{Ability, EmbeddedHost, Outcome, folder, load, run};

#[test]
fn every_vector_holds_on_the_embedded_endpoint() {
    let vectors = load(&folder()).unwrap();
    let mut failed = Vec::new();
    let outcomes = run(&mut EmbeddedHost::new().unwrap(), &vectors, |vector, outcome| {
        // HTTP is not its matter.
        if !matches!(outcome, Outcome::Passed | Outcome::Skipped(Ability::Http)) {
            failed.push(format!("{}\n    {outcome:?}", vector.title()));
        }
    });
    assert!(failed.is_empty(), "{} of {} vectors fail:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
}
