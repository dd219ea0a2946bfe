//! That the vectors are well written, and cover what they should.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_testkit::contract::{Vector, files, folder, load};

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

fn sentences() -> BTreeMap<String, Value> {
    let sentences = json("sentences.json")["sentences"].as_object().unwrap().clone();
    sentences.into_iter().collect()
}

fn vectors() -> Vec<Vector> {
    load(&folder()).unwrap()
}

#[test]
fn every_file_satisfies_the_schema() {
    let validator = jsonschema::validator_for(&json("schema.json")).unwrap();
    for path in files(&folder()).unwrap() {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let wrong: Vec<_> =
            validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {}", path.display(), wrong.join("\n"));
    }
}

#[test]
fn every_sentence_named_is_one() {
    let (sentences, vectors) = (sentences(), vectors());
    let shown: BTreeSet<&String> = vectors.iter().flat_map(|vector| &vector.shows).collect();
    let unknown: Vec<_> = shown.iter().filter(|id| !sentences.contains_key(**id)).collect();
    assert!(unknown.is_empty(), "vectors name sentences that are none: {unknown:?}");
}

#[test]
fn names_are_one_of_a_kind() {
    let vectors = vectors();
    let names: BTreeSet<&String> = vectors.iter().map(|vector| &vector.name).collect();
    assert_eq!(names.len(), vectors.len());
}
