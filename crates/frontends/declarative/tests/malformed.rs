//! Errors name the place and what is wrong with it.

use ashlar_frontend_declarative::{COMMAND_BYTES_MAX, ITEMS_MAX, STEPS_MAX, parse_steps};
use serde_json::{Value, json};

fn errors(json: &Value) -> Vec<String> {
    parse_steps(json).expect_err("is well formed").into_iter().map(|d| d.message).collect()
}

#[test]
fn every_mistake_is_named() {
    let copy = |sources: Value| json!({"action": "copy", "sources": sources, "dst": "/x"});
    let mode = |mode: Value| json!({"action": "make_dir", "path": "/x", "mode": mode});
    let table: Vec<(Value, &str)> = vec![
        (json!(7), ": must be an object with the key 'action', not a number"),
        (json!(null), ": must be an object with the key 'action', not null"),
        (json!({}), ".action: is missing"),
        (json!({"action": null}), ".action: is missing"),
        (json!({"action": 3}), ".action: must be a string, not a number"),
        (json!({"action": ""}), ".action: must not be empty"),
        (json!({"action": "fly"}), ".action: unknown action 'fly'"),
        (json!({"action": "RUN", "command": "x"}), ".action: unknown action 'RUN'"),
        (json!({"action": "apt_install"}), ".packages: is missing"),
        (
            json!({"action": "apt_install", "packages": "curl"}),
            ".packages: must be a list of strings, not a string",
        ),
        (
            json!({"action": "apt_install", "packages": ["a", 1]}),
            ".packages[1]: must be a string, not a number",
        ),
        (json!({"action": "apt_install", "packages": [""]}), ".packages[0]: must not be empty"),
        (
            json!({"action": "pip_install", "packages": [], "g": "yes"}),
            ".g: must be a boolean, not a string",
        ),
        (json!({"action": "run"}), ".command: is missing"),
        (json!({"action": "run", "command": ""}), ".command: must not be empty"),
        (json!({"action": "run", "command": ["ls"]}), ".command: must be a string, not a list"),
        (json!({"action": "run", "command": "a\u{0}b"}), ".command: must not hold a NUL"),
        (json!({"action": "run", "command": "x", "user": ""}), ".user: must not be empty"),
        (
            json!({"action": "run", "command": "x", "user": "a b"}),
            ".user: is no user; write a name or a number, with a group after ':' if need be",
        ),
        (
            json!({"action": "user", "user": "a:b:c"}),
            ".user: is no user; write a name or a number, with a group after ':' if need be",
        ),
        (
            json!({"action": "user", "user": "4294967296"}),
            ".user: is no user; write a name or a number, with a group after ':' if need be",
        ),
        (
            json!({"action": "workdir", "path": "/a\nUSER root"}),
            ".path: must not hold control characters",
        ),
        (copy(json!([])), ".sources: must not be empty"),
        (copy(json!("a")), ".sources: must be a list of strings, not a string"),
        (
            copy(json!(["a", "../b"])),
            ".sources[1]: must not hold '..': a copy can't leave the context",
        ),
        (
            copy(json!(["a/../b"])),
            ".sources[0]: must not hold '..': a copy can't leave the context",
        ),
        (copy(json!(["/etc/passwd"])), ".sources[0]: must be relative to the root of the context"),
        (copy(json!(["a\u{0}"])), ".sources[0]: must not hold a NUL"),
        (json!({"action": "copy", "sources": ["a"]}), ".dst: is missing"),
        (
            json!({"action": "copy_items", "items": {}}),
            ".items: must be a list of objects, not an object",
        ),
        (
            json!({"action": "copy_items", "items": [{"sources": ["a"], "dst": "b"}, {"dst": "c"}]}),
            ".items[1].sources: is missing",
        ),
        (
            json!({"action": "copy_items", "items": [{"sources": ["/a"], "dst": "b"}]}),
            ".items[0].sources[0]: must be relative to the root of the context",
        ),
        (
            mode(json!("0999")),
            ".mode: is no mode; write it as \"0755\", or as the integer of that value (493)",
        ),
        (
            mode(json!("u+x")),
            ".mode: is no mode; write it as \"0755\", or as the integer of that value (493)",
        ),
        (
            mode(json!(4096)),
            ".mode: is no mode; write it as \"0755\", or as the integer of that value (493)",
        ),
        (
            mode(json!(-1)),
            ".mode: is no mode; write it as \"0755\", or as the integer of that value (493)",
        ),
        (mode(json!(true)), ".mode: must be an octal string or an integer, not a boolean"),
        (
            json!({"action": "git_clone", "url": "--upload-pack=x"}),
            ".url: must not begin with '-': git takes it for an option",
        ),
        (
            json!({"action": "git_clone", "url": "u", "branch": "-b"}),
            ".branch: must not begin with '-': git takes it for an option",
        ),
        (
            json!({"action": "git_clone", "url": "u", "depth": 0}),
            ".depth: must be an integer of at least 1",
        ),
        (
            json!({"action": "git_clone", "url": "u", "depth": 1.5}),
            ".depth: must be an integer of at least 1",
        ),
        (
            json!({"action": "git_clone", "url": "u", "depth": "1"}),
            ".depth: must be an integer, not a string",
        ),
        (json!({"action": "rename", "src": "a"}), ".dst: is missing"),
        (json!({"action": "make_symlink", "path": "a"}), ".target: is missing"),
        (json!({"action": "remove", "path": 1}), ".path: must be a string, not a number"),
    ];
    assert!(table.len() >= 30);
    for (step, want) in table {
        let fine = json!({"action": "skip_cache"});
        assert_eq!(errors(&json!([fine, step])), [format!("steps[1]{want}")], "{step}");
    }
}

#[test]
fn all_wrong_steps_are_told_of_at_once_up_to_a_bound() {
    let two = json!([{"action": "run"}, {"action": "skip_cache"}, {"action": "x"}]);
    assert_eq!(errors(&two).len(), 2);
    assert_eq!(errors(&Value::Array(vec![json!(1); 1000])).len(), 50);
}

#[test]
fn an_unknown_action_is_told_the_known_ones() {
    let error = &parse_steps(&json!([{"action": "RUN"}])).unwrap_err()[0];
    assert!(error.hint.as_ref().unwrap().contains("make_symlink"));
}

#[test]
fn unknown_keys_are_warned_of() {
    let parsed = parse_steps(&json!([
        {"action": "run", "command": "x", "usr": "a"},
        {"action": "copy_items", "items": [{"sources": ["a"], "dst": "b", "mod": 1}]},
    ]));
    let said: Vec<_> = parsed.unwrap().warnings.into_iter().map(|d| d.message).collect();
    let want =
        ["steps[0].usr: unknown key, ignored", "steps[1].items[0].mod: unknown key, ignored"];
    assert_eq!(said, want);
}

#[test]
fn sizes_are_bounded() {
    assert_eq!(errors(&json!({}))[0], "steps: must be a list of steps");
    let many = Value::Array(vec![json!({"action": "skip_cache"}); STEPS_MAX + 1]);
    assert_eq!(errors(&many), [format!("steps: has more than {STEPS_MAX} entries")]);
    let packages = vec!["a"; ITEMS_MAX + 1];
    let many = json!([{"action": "apt_install", "packages": packages}]);
    assert_eq!(errors(&many), [format!("steps[0].packages: has more than {ITEMS_MAX} entries")]);
    let long = json!([{"action": "run", "command": "x".repeat(COMMAND_BYTES_MAX + 1)}]);
    assert_eq!(
        errors(&long),
        [format!("steps[0].command: has more than {COMMAND_BYTES_MAX} bytes")]
    );
    let long = json!([{"action": "apt_install", "packages": vec!["x".repeat(1000); 200]}]);
    let want =
        format!("steps[0]: makes a command of more than {COMMAND_BYTES_MAX} bytes; split it");
    assert_eq!(errors(&long), [want]);
}
