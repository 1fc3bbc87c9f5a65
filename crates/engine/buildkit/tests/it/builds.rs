//! What comes out of builds on real daemons.

use ashlar_core::journal::StepOutcome;

use crate::world::{STORES, World, fresh, registry};

#[test]
fn an_image_comes_back_from_both_kinds_of_store() {
    for store in STORES {
        let world = World::on(store);
        let (base, mark) = (registry(), fresh());
        world.file("hello.txt", "hello");
        let text = format!(
            "FROM {base}/library/busybox\nENV A=1\nCOPY hello.txt /h\nRUN echo {mark} >/made; echo said\n\
             CMD [\"/bin/sh\"]\n"
        );
        let made = world.build(&text);
        let files = world.files(&made);
        assert_eq!(files["h"], b"hello", "{store}");
        assert_eq!(files["made"], format!("{mark}\n").as_bytes(), "{store}");
        let config = world.config(&made);
        assert_eq!(config.config.env_value("A"), Some("1"), "{store}");
        assert_eq!(config.config.cmd, Some(vec!["/bin/sh".to_owned()]), "{store}");
        assert_eq!(config.rootfs.diff_ids.len(), made.image.layers.len(), "{store}");
        assert!(world.heard.lines().contains(&"said".to_owned()), "{:#?}", world.heard.all());
        let run = world.heard.outcomes().into_iter().find(|(n, _)| n.contains("RUN")).unwrap();
        assert_eq!(run.1, StepOutcome::Ran, "{store}");
        println!("{:#?}", world.heard.all());
    }
}
