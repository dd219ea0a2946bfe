//! What the library exports.

/// More would be hard to learn, and each item costs code in every language.
const MOST_ITEMS: usize = 45;

#[test]
fn it_is_small() {
    let source = include_str!("../../src/lib.rs");
    let named = source.lines().filter(|line| !line.starts_with("//")).collect::<String>();
    let lists = named.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let items: Vec<&str> = lists
        .flat_map(|list| list.split_once("::").unwrap().1.trim_matches(['{', '}']).split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    assert!(items.contains(&"SyncManager") && items.contains(&"set_logger"), "{items:?}");
    assert!(items.len() <= MOST_ITEMS, "{} items: {items:?}", items.len());
}
