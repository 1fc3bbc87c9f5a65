use super::*;

fn parse(text: &str) -> Read<Specification> {
    Specification::parse(&read_text(text)?)
}

const FLAT: &str = "version: 1\nkind: build\nimage: busybox\n";

#[test]
fn nested_flat_json_and_python_forms_say_the_same() {
    let flat = parse("version: 1\nkind: build\nimage: busybox\nbuild_steps:\n  - echo a\nenv_vars: [[A, 1], [B, true]]\nnocache: true").unwrap();
    let nested = parse(
        "version: 1\nkind: build\nbuild:\n  image: busybox\n  build_steps: [echo a]\n  env_vars:\n  - [A, 1]\n  - ['B', true]\n  nocache: yes\n",
    );
    let json = parse(r#"{"version":1,"kind":"build","image":"busybox","build_steps":["echo a"],"env_vars":[["A",1],["B",true]],"nocache":true}"#).unwrap();
    let python = parse("{'version': 1, 'kind': 'build', 'image': 'busybox', 'build_steps': ['echo a'], 'env_vars': [['A', 1], ['B', True]], 'nocache': True}").unwrap();
    assert_eq!(flat, json);
    assert_eq!(flat, python);
    assert_eq!(flat, Specification { nested: false, ..nested.unwrap() });
    assert_eq!(flat.variables, [("A".into(), "1".into()), ("B".into(), "True".into())]);
    assert_eq!(flat.base, Base::Image("busybox".into()));
}

#[test]
fn wrong_specifications_are_refused() {
    let table = [
        ("", "mapping"),
        ("- a", "mapping"),
        ("just text", "mapping"),
        ("a: [", "YAML"),
        ("/etc/passwd", "mapping"),
        ("kind: build\nimage: a", "`version` is required"),
        ("version: 2\nkind: build\nimage: a", "`version` must be 1"),
        ("version: '1'\nkind: build\nimage: a", "`version` must be 1"),
        ("version: 1\nimage: a", "`kind` is required"),
        ("version: 1\nkind: experiment\nimage: a", "only `build`"),
        ("version: 1\nkind: cat\nimage: a", "`kind` must be"),
        ("version: 1\nkind: build", "Exactly one"),
        ("version: 1\nkind: build\nimage: ''", "Exactly one"),
        ("version: 1\nkind: build\nimage: a\ndockerfile: b", "Exactly one"),
        ("version: 1\nkind: build\nref: 3", "`ref`"),
        ("version: 1\nkind: build\nimage: a b", "Invalid docker image"),
        ("version: 1\nkind: build\nimage: a:b:c", "Invalid docker image"),
        ("version: 1\nkind: build\nimage: a:/b:c", "Invalid docker image"),
        ("version: 1\nkind: build\nimage: a:b/c:d:e", "Invalid docker image"),
        ("version: 1\nkind: build\nimage: [a]", "must be a string"),
        ("version: 1\nkind: build\nbuild: x", "`build` must be a mapping"),
        ("version: 1\nkind: build\nbuild: {image: a, foo: 1}", "Unknown key `foo`"),
        ("version: 1\nkind: build\nimage: a\nfoo: 1", "Unknown key `foo`"),
        ("version: 1\nkind: build\nbuild: {image: a}\nimage: b", "Unknown key `image`"),
        ("version: 1\nkind: build\nimage: a\nbuild_steps: echo", "build_steps"),
        ("version: 1\nkind: build\nimage: a\nbuild_steps: [1]", "build_steps"),
        ("version: 1\nkind: build\nimage: a\nenv_vars: [[A]]", "env_vars"),
        ("version: 1\nkind: build\nimage: a\nenv_vars: [[A, b, c]]", "env_vars"),
        ("version: 1\nkind: build\nimage: a\nenv_vars: [[A, [b]]]", "scalar"),
        ("version: 1\nkind: build\nimage: a\nenv_vars: {A: b}", "env_vars"),
        ("version: 1\nkind: build\nimage: a\nnocache: maybe", "boolean"),
        ("version: 1\nkind: build\nimage: a\nbackend: docker", "backend"),
        ("version: 1\nkind: build\nimage: a\nlogging: {level: WARNING}", "logging.level"),
        ("version: 1\nkind: build\nimage: a\nlogging: {file: x}", "Unknown key"),
        ("version: 1\nkind: build\nimage: a\ntags: red", "tags"),
        ("version: 1\nkind: build\nimage: a\nenvironment: {cats: 1}", "Unknown key `cats`"),
        (
            "version: 1\nkind: build\nimage: a\nenvironment: {resources: {disk: {limits: 1}}}",
            "disk",
        ),
        (
            "version: 1\nkind: build\nimage: a\nenvironment: {resources: {cpu: {limits: -1}}}",
            "limits",
        ),
        ("version: 1\nkind: build\nimage: a\nparams: {a: 1}\ndeclarations: {a: 1}", "Only one"),
    ];
    for (text, part) in table {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(error.starts_with("Received non valid specification config."), "{error}");
    }
    assert!(parse(&format!("{FLAT}description: {}", "x".repeat(SPEC_BYTES_MAX))).is_err());
}

#[test]
fn images_may_have_a_port_and_a_tag() {
    for image in ["busybox", "busybox:1", "host:5000/name:tag", "host:5000/a/b", "a@sha256:abc"] {
        assert!(check_image(image).is_ok(), "{image}");
    }
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let row = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    assert!(read_text(&text).is_err());
    let deep = "[".repeat(100_000);
    assert!(read_text(&deep).is_err());
}

#[test]
fn parameters_are_filled_in_and_other_braces_stay() {
    let text = "version: 1\nkind: build\nimage: 'busybox:{{ tag }}'\nparams: {tag: 1.36, n: 3}\nbuild_steps: ['echo {{n}} {{ other }} {{', 'echo ${{n}}']";
    let spec = parse(text).unwrap();
    assert_eq!(spec.base, Base::Image("busybox:1.36".into()));
    assert_eq!(spec.steps, ["echo 3 {{ other }} {{", "echo $3"]);
}

#[test]
fn filling_in_cannot_blow_a_text_up() {
    let value = "v".repeat(100_000);
    let uses = "{{a}}".repeat(1000);
    let text = format!(
        "version: 1\nkind: build\nimage: a\nparams: {{a: {value}}}\nbuild_steps: ['{uses}']"
    );
    assert!(parse(&text).unwrap_err().to_string().contains("Filled in"));
}

#[test]
fn resources_are_limits_and_an_echo() {
    let spec = parse("version: 1\nkind: build\nimage: a\nenvironment:\n  resources:\n    cpu: {limits: 2, requests: 1}\n    memory: {limits: 512}\n  node_selector: {a: b}").unwrap();
    assert_eq!(spec.resources.cpus, Some(2.0));
    assert_eq!(spec.resources.memory_bytes, Some(512 << 20));
    let echo = serde_json::json!({
        "cpu": {"limits": 2.0, "requests": 1.0},
        "memory": {"limits": 512.0, "requests": null},
    });
    assert_eq!(spec.resources.echo, Some(echo));
    assert_eq!(parse(FLAT).unwrap().resources, Resources::default());
}
