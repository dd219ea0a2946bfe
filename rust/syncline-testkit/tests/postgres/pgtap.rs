use std::path::Path;

/// The tests of `supabase/tests`, each file in a transaction of its own that is rolled back.
#[test]
fn every_pgtap_test_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../supabase/tests");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() >= 4);
    let socket = {
        let _ = crate::database("pgtap");
        crate::socket()
    };
    let mut command = std::process::Command::new("pg_prove");
    command.env("PGHOST", socket).env("PGUSER", "postgres").env("PGDATABASE", "pgtap").args(files);
    let output = command.output().expect("pg_prove runs: scripts/provide postgres");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("Result: PASS"), "{told}");
}
