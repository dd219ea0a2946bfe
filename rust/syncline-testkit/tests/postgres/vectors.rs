use syncline_testkit::contract::{Outcome, PostgresHost, folder, load, run};

#[test]
fn every_vector_holds_on_postgres() {
    let vectors = load(&folder()).unwrap();
    let mut host = PostgresHost::new(&crate::database("vectors")).unwrap();
    let mut failed = Vec::new();
    let outcomes = run(&mut host, &vectors, |vector, outcome| {
        if let Outcome::Failed(why) = outcome {
            failed.push(format!("{}\n    {why}", vector.title()));
        }
    });
    assert!(failed.is_empty(), "{} of {} vectors fail:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
    let skipped = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Skipped(_))).count();
    assert!(skipped * 10 < outcomes.len(), "{skipped} of {} vectors are skipped", outcomes.len());
}
