//! That every statement names one scope, those that registered tables bring with them too. `scripts/one-scope` reads them; the part
//! `lint` of `scripts/test` has it read the migrations.

use std::path::Path;

#[test]
fn what_is_generated_for_registered_tables_names_one_scope_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    drop(crate::database("generated"));
    crate::sql("generated", &std::fs::read_to_string(root.join("supabase/seed.sql")).unwrap());
    let generated = crate::sql(
        "generated",
        "SELECT string_agg(pg_get_functiondef(p.oid), E';\\n') FROM pg_proc p
         WHERE p.pronamespace = 'syncline'::regnamespace AND p.proname LIKE 'table\\_%'",
    );
    assert!(generated.matches("insert into syncline.captures").count() >= 10, "{generated}");
    let check = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let output = std::process::Command::new(root.join("scripts/one-scope"))
            .args(["--column", "team_id"])
            .arg(file.path())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (is_good, said) = check(&generated);
    assert!(is_good, "{said}");
    // One that forgets the scope is seen, in our tables and in theirs.
    for (part, instead, table) in
        [("select p_scope,", "select 'x' || p_scope,", "captures"), ("t.team_id = p_scope and", "", "pins")]
    {
        let slip = generated.replacen(part, instead, 1);
        let (is_good, said) = check(&slip);
        let is_named = said.contains(&format!("the scope of {table} is not named"));
        assert!(slip != generated && !is_good && is_named, "{said}");
    }
}
