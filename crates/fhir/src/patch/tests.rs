//! What RFC 6902 demands, in the order of its appendix A, and what its readers get wrong.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(target: &Value, patch: Value) -> Result<Value, PatchError> {
    let before = target.clone();
    let result = Patch::from_value(&patch, &Limits::default()).and_then(|patch| apply(target, &patch));
    assert_eq!(*target, before, "the target stays as it is");
    result
}

#[track_caller]
fn becomes(target: Value, patch: Value, expected: Value) {
    let result = patched(&target, patch.clone()).unwrap_or_else(|error| panic!("{patch}: {error}"));
    // as text, so that the order of members and the digits of numbers count
    assert_eq!(result.to_string(), expected.to_string(), "{patch}");
}

#[track_caller]
fn fails(target: Value, patch: Value, kind: PatchErrorKind, place: &str, says: &str) {
    let error = patched(&target, patch.clone()).expect_err(&patch.to_string());
    assert_eq!((error.kind, error.place.as_str()), (kind, place), "{patch}: {error}");
    assert!(error.text.contains(says), "{patch}: {error}");
    assert!(!error.to_string().contains("Geheim"), "{error}");
    assert_eq!(error.issue().location.as_deref(), Some(place));
}

#[test]
fn the_operations_do_what_appendix_a_shows() {
    for (target, patch, expected) in [
        // A.1 an object member is added, A.2 an item
        (json!({ "a": 1 }), json!([{ "op": "add", "path": "/b", "value": 2 }]), json!({ "a": 1, "b": 2 })),
        (
            json!({ "l": [1, 3] }),
            json!([{ "op": "add", "path": "/l/1", "value": 2 }]),
            json!({ "l": [1, 2, 3] }),
        ),
        // A.3 a member is removed, A.4 an item
        (
            json!({ "a": 1, "b": 2, "c": 3 }),
            json!([{ "op": "remove", "path": "/a" }]),
            json!({ "b": 2, "c": 3 }),
        ),
        (json!({ "l": [1, 2, 3] }), json!([{ "op": "remove", "path": "/l/1" }]), json!({ "l": [1, 3] })),
        // A.5 a value is replaced where it stands
        (
            json!({ "a": 1, "b": 2 }),
            json!([{ "op": "replace", "path": "/a", "value": "x" }]),
            json!({ "a": "x", "b": 2 }),
        ),
        // A.6 a value is moved, A.7 an item
        (
            json!({ "from": { "a": 1, "b": 2 }, "to": { "c": 3 } }),
            json!([{ "op": "move", "from": "/from/a", "path": "/to/d" }]),
            json!({ "from": { "b": 2 }, "to": { "c": 3, "d": 1 } }),
        ),
        (
            json!({ "l": [1, 2, 3, 4] }),
            json!([{ "op": "move", "from": "/l/1", "path": "/l/3" }]),
            json!({ "l": [1, 3, 4, 2] }),
        ),
        // A.8 a test holds
        (
            json!({ "a": "x", "l": ["b", 2, "c"] }),
            json!([{ "op": "test", "path": "/a", "value": "x" }, { "op": "test", "path": "/l/1", "value": 2 }]),
            json!({ "a": "x", "l": ["b", 2, "c"] }),
        ),
        // A.10 an object is added within another, A.11 what the RFC does not know is ignored
        (
            json!({ "a": 1 }),
            json!([{ "op": "add", "path": "/b", "value": { "c": {} }, "xyz": 123 }]),
            json!({ "a": 1, "b": { "c": {} } }),
        ),
        // A.14 escapes, A.16 a list is added to the end of a list
        (
            json!({ "/": 9, "~1": 10 }),
            json!([{ "op": "test", "path": "/~01", "value": 10 }, { "op": "test", "path": "/~1", "value": 9 }]),
            json!({ "/": 9, "~1": 10 }),
        ),
        (
            json!({ "l": ["a"] }),
            json!([{ "op": "add", "path": "/l/-", "value": ["b"] }]),
            json!({ "l": ["a", ["b"]] }),
        ),
    ] {
        becomes(target, patch, expected);
    }
}

#[test]
fn the_operations_fail_where_appendix_a_says_so() {
    use PatchErrorKind::{NoSuchPlace, TestFailed};
    // A.9, A.12, A.15
    let test = json!([{ "op": "test", "path": "/a", "value": "Geheim" }]);
    fails(json!({ "a": "x" }), test, TestFailed, "operation 0, /a", "another one");
    let add = json!([{ "op": "add", "path": "/b/c", "value": "Geheim" }]);
    fails(json!({ "a": "x" }), add, NoSuchPlace, "operation 0, /b/c", "is not there");
    let test = json!([{ "op": "test", "path": "/~01", "value": "10" }]);
    fails(json!({ "/": 9, "~1": 10 }), test, TestFailed, "operation 0, /1", "another one");
}

#[test]
fn a_document_that_is_no_patch_is_told_from_one_that_cannot_be_applied() {
    for (operation, says) in [
        (json!(1), "is an object"),
        (json!({ "path": "/a" }), "op is missing"),
        (json!({ "op": 1, "path": "/a" }), "op is missing"),
        (json!({ "op": "Add", "path": "/a", "value": 1 }), "op is one of"),
        (json!({ "op": "Geheim", "path": "/a", "value": 1 }), "op is one of"),
        (json!({ "op": "add", "value": 1 }), "path is missing"),
        (json!({ "op": "add", "path": ["a"], "value": 1 }), "path is missing or no text"),
        (json!({ "op": "add", "path": "/a" }), "value is missing"),
        (json!({ "op": "replace", "path": "/a" }), "value is missing"),
        (json!({ "op": "test", "path": "/a" }), "value is missing"),
        (json!({ "op": "move", "path": "/a" }), "from is missing"),
        (json!({ "op": "copy", "path": "/a", "from": null }), "from is missing"),
        (json!({ "op": "remove", "path": "Geheim" }), "path is no json pointer"),
        (json!({ "op": "remove", "path": "#/a" }), "path is no json pointer"),
        (json!({ "op": "remove", "path": "/a~" }), "after ~ comes 0 or 1"),
        (json!({ "op": "remove", "path": "/a~2" }), "after ~ comes 0 or 1"),
        (json!({ "op": "remove", "path": "/~ü" }), "after ~ comes 0 or 1"),
        (json!({ "op": "copy", "from": "a", "path": "/a" }), "from is no json pointer"),
        (json!({ "op": "move", "from": "/a", "path": "/a/b" }), "into itself"),
        (json!({ "op": "move", "from": "", "path": "/b" }), "into itself"),
        (
            json!({ "op": "remove", "path": format!("/{}", "a".repeat(1024)) }),
            "path has more than 1024 bytes",
        ),
    ] {
        let fine = json!({ "op": "test", "path": "", "value": {} });
        fails(json!({}), json!([fine, operation]), PatchErrorKind::BadDocument, "operation 1", says);
    }
    for (document, says) in
        [(json!({}), "is a list"), (json!("Geheim"), "is a list"), (json!(null), "is a list")]
    {
        fails(json!({}), document, PatchErrorKind::BadDocument, "patch", says);
    }
    let many = Value::Array(vec![json!({ "op": "test", "path": "", "value": {} }); 1001]);
    fails(json!({}), many, PatchErrorKind::BadDocument, "patch", "more than 1000 operations");
    becomes(json!({ "a": 1 }), json!([]), json!({ "a": 1 }));
}

#[test]
fn places_that_are_not_there_are_named() {
    let target = json!({ "l": ["Geheim", 2], "o": { "-": 1 }, "t": "Geheim" });
    for (op, path) in [
        ("remove", "/x"),
        ("replace", "/x"),
        ("test", "/x"),
        ("remove", ""),
        ("add", "/x/y"),
        ("add", "/t/0"),
        ("replace", "/t/0"),
        ("remove", "/t/x"),
        ("test", "/l/2"),
        ("remove", "/l/2"),
        ("replace", "/l/2"),
        ("add", "/l/3"),
        ("remove", "/l/-"),
        ("replace", "/l/-"),
        ("test", "/l/-"),
        ("add", "/l/-/x"),
        ("add", "/l/01"),
        ("test", "/l/00"),
        ("add", "/l/-1"),
        ("add", "/l/1x"),
        ("add", "/l/x"),
        ("add", "/l/"),
        ("add", "/l/99999999999999999999999"),
    ] {
        let patch = json!([{ "op": op, "path": path, "value": "Geheim" }]);
        fails(target.clone(), patch, PatchErrorKind::NoSuchPlace, &format!("operation 0, {path}"), "");
    }
    for op in ["move", "copy"] {
        for from in ["/x", "/l/2", "/l/-", "/t/0"] {
            let patch = json!([{ "op": op, "from": from, "path": "/new" }]);
            fails(target.clone(), patch, PatchErrorKind::NoSuchPlace, "operation 0, /new", "");
        }
        let patch = json!([{ "op": op, "from": "/l", "path": "/x/y" }]);
        fails(target.clone(), patch, PatchErrorKind::NoSuchPlace, "operation 0, /x/y", "is not there");
    }
    let patch = json!([{ "op": "remove", "path": "/a b<c>\"/Ä/0" }]);
    fails(target, patch, PatchErrorKind::NoSuchPlace, "operation 0, /abc//0", "is not there");
}

#[test]
fn traps_of_lists_names_and_whole_documents() {
    for (target, patch, expected) in [
        (
            json!({ "o": {} }),
            json!([{ "op": "add", "path": "/o/-", "value": 1 }]),
            json!({ "o": { "-": 1 } }),
        ),
        (json!({ "o": {} }), json!([{ "op": "add", "path": "/o/", "value": 1 }]), json!({ "o": { "": 1 } })),
        (
            json!({ "o": {} }),
            json!([{ "op": "add", "path": "/o/01", "value": 1 }]),
            json!({ "o": { "01": 1 } }),
        ),
        (json!([1]), json!([{ "op": "add", "path": "/1", "value": 2 }]), json!([1, 2])),
        (json!([1]), json!([{ "op": "add", "path": "/0", "value": 0 }]), json!([0, 1])),
        (
            json!({ "a": 1, "b": 2 }),
            json!([{ "op": "add", "path": "/a", "value": null }]),
            json!({ "a": null, "b": 2 }),
        ),
        (json!({ "a": 1 }), json!([{ "op": "add", "path": "", "value": [1.50] }]), json!([1.50])),
        (json!({ "a": 1 }), json!([{ "op": "replace", "path": "", "value": 5 }]), json!(5)),
        (json!({ "a": { "b": 1 } }), json!([{ "op": "move", "from": "/a", "path": "" }]), json!({ "b": 1 })),
        (
            json!({ "a": 1 }),
            json!([{ "op": "copy", "from": "", "path": "/b" }]),
            json!({ "a": 1, "b": { "a": 1 } }),
        ),
        (json!({ "a": 1 }), json!([{ "op": "move", "from": "", "path": "" }]), json!({ "a": 1 })),
        (
            json!({ "a": 1, "b": 2 }),
            json!([{ "op": "move", "from": "/a", "path": "/a" }]),
            json!({ "a": 1, "b": 2 }),
        ),
        (
            json!({ "a": { "b": 1 } }),
            json!([{ "op": "move", "from": "/a/b", "path": "/a" }]),
            json!({ "a": 1 }),
        ),
        (json!({ "a": 1 }), json!([{ "op": "move", "from": "/a", "path": "/ab" }]), json!({ "ab": 1 })),
        (json!([1, 2]), json!([{ "op": "move", "from": "/0", "path": "/-" }]), json!([2, 1])),
        (json!([1, 2]), json!([{ "op": "copy", "from": "/1", "path": "/0" }]), json!([2, 1, 2])),
        (
            json!({ "a": { "b": [] } }),
            json!([{ "op": "copy", "from": "/a", "path": "/a/b/0" }]),
            json!({ "a": { "b": [{ "b": [] }] } }),
        ),
        (
            json!({ "ü/~": 1 }),
            json!([{ "op": "replace", "path": "/ü~1~0", "value": 2 }]),
            json!({ "ü/~": 2 }),
        ),
        // each operation sees what came of those before it
        (
            json!({}),
            json!([{ "op": "add", "path": "/l", "value": [] }, { "op": "add", "path": "/l/-", "value": 1 }, { "op": "test", "path": "/l/0", "value": 1.0 }]),
            json!({ "l": [1] }),
        ),
    ] {
        becomes(target, patch, expected);
    }
    // what is moved within a list is counted after it was taken out
    let patch = json!([{ "op": "move", "from": "/0", "path": "/2" }]);
    fails(json!([1, 2]), patch, PatchErrorKind::NoSuchPlace, "operation 0, /2", "beyond the end");
}

#[test]
fn a_test_compares_by_value_and_by_nothing_else() {
    let target = json!({ "n": 1.0, "o": { "a": 1, "b": [1e2, null] }, "z": null, "s": "1" });
    let holds = |path: &str, value: Value| {
        let patch = json!([{ "op": "test", "path": path, "value": value }]);
        patched(&target, patch).is_ok()
    };
    assert!(holds("/n", json!(1)) && holds("/n", json!(1.00)) && holds("/z", json!(null)));
    assert!(holds("/o", json!({ "b": [100, null], "a": 1.0 })) && holds("", target.clone()));
    assert!(!holds("/s", json!(1)) && !holds("/n", json!("1")) && !holds("/n", json!(true)));
    assert!(!holds("/o", json!({ "a": 1 })) && !holds("/o", json!({ "a": 1, "c": [100, null] })));
    assert!(!holds("/o/b", json!([null, 100])) && !holds("/o/b", json!([100])) && !holds("/z", json!(false)));
}

#[test]
fn a_patch_that_fails_at_its_end_changes_nothing_and_names_the_operation() {
    let patch = json!([
        { "op": "remove", "path": "/a" },
        { "op": "add", "path": "/b", "value": 2 },
        { "op": "add", "path": "/l/-", "value": 3 },
        { "op": "test", "path": "/name/0", "value": "Geheim" },
    ]);
    let target = json!({ "a": 1, "l": [], "name": ["x"] });
    fails(target, patch, PatchErrorKind::TestFailed, "operation 3, /name/0", "another one");
}

#[test]
fn a_small_patch_makes_no_large_or_deep_document() {
    let doubling = json!({ "op": "copy", "from": "", "path": "/x" });
    let deeper = Value::Array(vec![doubling; 100]);
    fails(json!({}), deeper, PatchErrorKind::TooLarge, "operation 63, /x", "deeper than 64 levels");
    let long = "x".repeat(1 << 20);
    let doubling: Vec<Value> =
        (0..40).map(|_| json!({ "op": "copy", "from": "/l", "path": "/l/-" })).collect();
    fails(
        json!({ "l": [long] }),
        Value::Array(doubling),
        PatchErrorKind::TooLarge,
        "operation 5, /l/-",
        "bytes",
    );
    let flat: Vec<Value> =
        (0..40).map(|n| json!({ "op": "copy", "from": "/0", "path": format!("/{n}") })).collect();
    let wide = json!([vec![0; 100_000]]);
    fails(wide, Value::Array(flat), PatchErrorKind::TooLarge, "operation 8, /8", "more than 1000000 values");
    let front: Vec<Value> = (0..1000).map(|_| json!({ "op": "add", "path": "/0", "value": 0 })).collect();
    fails(
        json!(vec![0; 500_000]),
        Value::Array(front),
        PatchErrorKind::TooLarge,
        "operation 19, /0",
        "long lists",
    );
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    fails(deep, json!([]), PatchErrorKind::TooLarge, "target", "deeper than 64 levels");
    let moved = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    let under = format!("/b{}", "/a".repeat(40));
    let patch =
        json!([{ "op": "copy", "from": "/a", "path": "/b" }, { "op": "move", "from": "/a", "path": under }]);
    let place = format!("operation 1, /b{}/...", "/a".repeat(15));
    fails(moved, patch, PatchErrorKind::TooLarge, &place, "deeper than 64 levels");
}

/// Small documents whose names and indexes the pointers below meet often.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("a")), Just(json!(1.0))];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[ab0]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn operation() -> impl Strategy<Value = Value> {
    let op = prop_oneof!["add", "remove", "replace", "move", "copy", "test"];
    (op, "(/(a|b|0|1|2|-|~0|~2|01)){0,4}", "(/(a|b|0|1)){0,4}", document())
        .prop_map(|(op, path, from, value)| json!({ "op": op, "path": path, "from": from, "value": value }))
}

proptest! {
    #[test]
    fn random_patches_neither_panic_nor_touch_the_target(
        target in document(),
        operations in proptest::collection::vec(operation(), 0..6),
    ) {
        let _ = patched(&target, Value::Array(operations));
    }

    #[test]
    fn what_was_added_is_there_and_gone_when_it_is_removed(target in document(), value in document()) {
        let holder = json!({ "a": target, "l": [1, 2] });
        for path in ["/b", "/l/0", "/l/1", "/l/2"] {
            let added = patched(&holder, json!([
                { "op": "add", "path": path, "value": value },
                { "op": "test", "path": path, "value": value },
            ])).unwrap();
            prop_assert_eq!(&patched(&added, json!([{ "op": "remove", "path": path }])).unwrap(), &holder);
        }
    }
}
