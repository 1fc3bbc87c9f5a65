//! Warnings by rule, and the directive that silences them.

use ashlar_frontend_dockerfile::Request;

use crate::common::{World, fail, lower, plan};

fn warnings(text: &str) -> Vec<(String, u32)> {
    let rule = |m: &str| m.split(':').next().unwrap_or_default().to_owned();
    let all = plan(text).warnings;
    all.iter().map(|w| (rule(&w.message), w.location.as_ref().map_or(0, |l| l.line))).collect()
}

#[test]
fn each_rule_warns() {
    let table: [(&str, &str, u32); 27] = [
        ("FROM busybox AS Big\n", "StageNameCasing", 1),
        ("FROM busybox as x\n", "FromAsCasing", 1),
        ("FROM busybox\nRUN a \\\n\n  b\n", "NoEmptyContinuation", 4),
        ("FROM busybox\nRUN a\nrun b\n", "ConsistentInstructionCasing", 3),
        ("FROM busybox AS a\nFROM busybox AS a\n", "DuplicateStageName", 2),
        ("FROM busybox AS context\n", "ReservedStageName", 1),
        ("FROM busybox\nCMD x\n", "JSONArgsRecommended", 2),
        ("FROM busybox\nENTRYPOINT x\n", "JSONArgsRecommended", 2),
        ("FROM busybox\nMAINTAINER x\n", "MaintainerDeprecated", 2),
        ("ARG B=busybox\nFROM ${C:-$B}\n", "UndefinedArgInFrom", 2),
        ("FROM busybox\nWORKDIR a\n", "WorkdirRelativePath", 2),
        ("FROM busybox\nENV A=$B\n", "UndefinedVar", 2),
        ("FROM busybox\nCOPY $B x\n", "UndefinedVar", 2),
        ("FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]\n", "MultipleInstructionsDisallowed", 2),
        ("FROM busybox\nENV A b\n", "LegacyKeyValueFormat", 2),
        ("FROM busybox\nLABEL a b\n", "LegacyKeyValueFormat", 2),
        ("FROM --platform=$TARGETPLATFORM busybox\n", "RedundantTargetPlatform", 1),
        ("FROM --platform=linux/arm64 busybox\n", "FromPlatformFlagConstDisallowed", 1),
        ("FROM busybox\nENV API_KEY=x\n", "SecretsUsedInArgOrEnv", 2),
        ("FROM busybox\nARG DB_PASSWORD\n", "SecretsUsedInArgOrEnv", 2),
        ("FROM busybox\nARG TOKEN\n", "SecretsUsedInArgOrEnv", 2),
        ("FROM busybox\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
        ("FROM busybox\nEXPOSE 8080:80\n", "ExposeInvalidFormat", 2),
        ("# syntax=docker/dockerfile:1.99\nFROM busybox\n", "SyntaxDirective", 1),
        ("# syntax=me/frontend\nFROM busybox\n", "SyntaxDirective", 1),
        (
            "# check=experimental=all\n\n# wrong words\nFROM busybox AS a\n",
            "InvalidDefinitionDescription",
            4,
        ),
        ("FROM busybox\nWORKDIR a\nWORKDIR b\n", "WorkdirRelativePath", 2),
    ];
    for (text, rule, line) in table {
        assert_eq!(warnings(text), [(rule.to_owned(), line)], "{text}");
    }
}

#[test]
fn good_files_do_not_warn() {
    for text in [
        "# syntax=docker/dockerfile:1\nFROM busybox AS a\nFROM a\nRUN x\nCMD [\"y\"]\n",
        "# syntax=docker.io/docker/dockerfile:1.7-labs\nFROM busybox\n",
        "from busybox as a\nrun x\n",
        "ARG B=busybox\nFROM $B\nARG X\nENV A=$X PUBLIC_KEY=1 KEYBOARD=2\n",
        "FROM busybox\nSHELL [\"a\"]\nCMD x\n",
        "FROM --platform=$BUILDPLATFORM busybox\nWORKDIR /a\nWORKDIR b\n",
        "FROM busybox\nRUN echo $undefined\nCMD [\"$x\"]\n",
    ] {
        assert_eq!(warnings(text), [], "{text}");
    }
}

#[test]
fn defaults_that_name_no_image_are_told() {
    let mut request = Request::text("ARG TAG\nFROM busybox:$TAG\n");
    request.build_args.insert("TAG".into(), "latest".into());
    let (plan, _) = lower(request, &World::default()).unwrap();
    assert!(plan.warnings[0].message.starts_with("InvalidDefaultArgInFrom"));
}

#[test]
fn checks_can_be_silenced_or_made_errors() {
    assert_eq!(warnings("# check=skip=JSONArgsRecommended\nFROM busybox\nCMD x\n"), []);
    assert_eq!(warnings("# check=skip=all\nFROM busybox\nCMD x\nMAINTAINER y\n"), []);
    let one = "FROM busybox\n# check=skip=LegacyKeyValueFormat\nENV A b\nENV C d\n";
    assert_eq!(warnings(one), [("LegacyKeyValueFormat".into(), 4)]);
    let error = fail("# check=error=true\nFROM busybox\nCMD x\n");
    assert!(error.to_string().contains("rules: JSONArgsRecommended"), "{error}");
    assert!(warnings("# check=skip=all;error=true\nFROM busybox\nCMD x\n").is_empty());
    let mut request = Request::text("FROM busybox\nCMD x\n");
    request.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".into(), "skip=all".into());
    assert!(lower(request, &World::default()).unwrap().0.warnings.is_empty());
}

#[test]
fn ignored_sources_are_told() {
    let request = |text| Request::text(text);
    let world = |ignore| World::default().with_file(".dockerignore", ignore);
    let count = |text, ignore| lower(request(text), &world(ignore)).unwrap().0.warnings.len();
    let table = [
        ("FROM busybox\nCOPY secret /x\n", "secret\n", 1),
        ("FROM busybox\nADD secret/in /x\n", "secret\n", 1),
        ("FROM busybox\nCOPY . /x\n", "*\n", 1),
        ("FROM busybox\nCOPY . /x\n", "secret\n", 0),
        ("FROM busybox\nCOPY secret /x\n", "secret\n!secret/a\n", 0),
        ("FROM busybox AS a\nFROM busybox\nCOPY --from=a secret /x\n", "secret\n", 0),
    ];
    for (text, ignore, want) in table {
        assert_eq!(count(text, ignore), want, "{text} {ignore}");
    }
}
