//! Whatever comes in: no panic, and data stays data.

#[cfg(test)]
#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use ashlar_core::frontend::Frontend;
use ashlar_frontend_declarative::{
    Base, Declarative, Definition, parse_steps, render_dockerfile, shell_quote,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;

/// The words of a simple command by POSIX rules (XCU 2.2): a second opinion on quoting.
fn split(command: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, command.chars());
    while let Some(c) = chars.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => {
                let quoted = chars.by_ref().take_while(|c| *c != '\'');
                word.get_or_insert_default().extend(quoted);
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => {
                let special = "\"$`&|;<>()#*?[]~!{}\n\t";
                assert!(!special.contains(c), "{c:?} is not quoted in {command:?}");
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    words
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\0]{1,12}",
        "[ '\"$`\\\\;&|<>*?~#=\\[\\]!\n\t-]{1,8}",
        Just("$(reboot)".to_owned()),
        Just("'; rm -rf / '".to_owned()),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Steps with the right keys and any values.
fn almost_steps() -> impl Strategy<Value = Value> {
    let actions = [
        "apt_install",
        "pip_install",
        "npm_install",
        "bun_install",
        "run",
        "workdir",
        "user",
        "copy",
        "copy_items",
        "remove",
        "rename",
        "make_dir",
        "make_symlink",
        "git_clone",
        "skip_cache",
    ];
    let keys = [
        "packages",
        "g",
        "command",
        "user",
        "path",
        "sources",
        "dst",
        "mode",
        "items",
        "src",
        "recursive",
        "force",
        "target",
        "url",
        "branch",
        "depth",
        "force_upload",
    ];
    let value = prop_oneof![
        3 => text().prop_map(Value::from),
        3 => proptest::collection::vec(text(), 0..3).prop_map(Value::from),
        1 => Just(json!([{"sources": ["a"], "dst": "b"}])),
        1 => any_json(),
    ];
    let keys =
        proptest::collection::btree_map(proptest::sample::select(keys.to_vec()), value, 0..17);
    let step = (proptest::sample::select(actions.to_vec()), keys).prop_map(|(action, keys)| {
        let mut step = json!({"action": action});
        keys.into_iter().for_each(|(k, v)| step[k] = v);
        step
    });
    proptest::collection::vec(step, 0..4).prop_map(Value::from)
}

proptest! {
    #[test]
    fn quoting_round_trips(words in proptest::collection::vec(text(), 1..4)) {
        let quoted: Vec<_> = words.iter().map(|w| shell_quote(w)).collect();
        prop_assert_eq!(split(&quoted.join(" ")), words);
    }

    #[test]
    fn paths_reach_programs_as_they_are(src in text(), dst in text(), branch in "[a-z \"$']{1,9}") {
        let plan = lower_json(&json!([
            {"action": "rename", "src": src, "dst": dst},
            {"action": "remove", "path": src, "recursive": true},
            {"action": "make_symlink", "target": src, "path": dst},
            {"action": "git_clone", "url": "u", "path": dst, "branch": branch},
            {"action": "npm_install", "packages": [src, dst]},
        ]));
        let commands: Vec<Vec<String>> = commands(&plan).into_iter().map(split).collect();
        let dashes = |texts: &[&String]| texts.iter().any(|t| t.starts_with('-'));
        for (words, skip, want) in [
            (&commands[0], 1, vec![&src, &dst]),
            (&commands[1], 2, vec![&src]),
            (&commands[2], 2, vec![&src, &dst]),
        ] {
            let guard = usize::from(dashes(&want));
            prop_assert_eq!(words[skip + guard..].iter().collect::<Vec<_>>(), want);
            if guard == 1 {
                prop_assert_eq!(&words[skip], "--");
            }
        }
        prop_assert_eq!(commands[3].last(), Some(&dst));
        prop_assert_eq!(&commands[3][3], &branch);
        prop_assert_eq!(&commands[4][2..], &[src, dst]);
    }

    #[test]
    fn nothing_panics_on_any_json(json in any_json()) {
        let _ = parse_steps(&json);
    }

    #[test]
    fn well_formed_steps_lower_render_and_round_trip(json in almost_steps()) {
        if let Ok(parsed) = parse_steps(&json) {
            let text = serde_json::to_value(&parsed.steps).unwrap();
            prop_assert_eq!(&parse_steps(&text).unwrap().steps, &parsed.steps);
            let dockerfile = render_dockerfile("debian", &parsed.steps);
            prop_assert!(dockerfile.lines().all(|l| {
                ["FROM ", "RUN ", "COPY ", "WORKDIR ", "USER ", "# "].iter().any(|i| l.starts_with(i))
            }), "an instruction was broken: {}", dockerfile);
            let definition = Definition::new(Base::Image("debian".into()), parsed.steps);
            let lowered = Declarative(definition).lower(&answers(base_config()));
            prop_assert!(lowered.is_ok(), "{:?}", lowered);
        }
    }
}

#[test]
fn a_real_shell_agrees() {
    let words = ["it's", "$(id)", "`id`", "a\nb", "\\", "", "*", "~", "a\"b", "-n", "#", "é \t"];
    let quoted: Vec<_> = words.iter().map(|w| shell_quote(w)).collect();
    let script = format!("printf '%s\\0' {}", quoted.join(" "));
    let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output();
    let text = String::from_utf8(output.expect("there is a /bin/sh").stdout).unwrap();
    assert_eq!(text.split_terminator('\0').collect::<Vec<_>>(), words);
}
