//! Any bytes as JSON steps: reading, rendering and lowering never panic, and what was read is
//! read again from what is written.
#![no_main]

use ashlar_core::frontend::{Answers, Frontend};
use ashlar_frontend_declarative::{Base, Declarative, Definition, parse_steps, render_dockerfile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(json) = serde_json::from_slice(data) else { return };
    let Ok(parsed) = parse_steps(&json) else { return };
    let written = serde_json::to_value(&parsed.steps).expect("steps are plain data");
    let again = parse_steps(&written).expect("what was written is well formed");
    assert_eq!(parsed.steps, again.steps);
    render_dockerfile("scratch", &parsed.steps);
    let definition = Definition::new(Base::Image("scratch".into()), parsed.steps);
    Declarative(definition).lower(&Answers::new()).expect("well-formed steps lower");
});
