//! What a server keeps: bounds on builds, and garbage collection beside it.

use std::time::{Duration, Instant};

use crate::server::Server;
use crate::world::World;

/// How long upkeep may take to come round, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

fn ids(server: &Server, world: &World) -> Vec<String> {
    let listed = server.run(world, &["builds", "list", "--json"]).ok().json();
    listed.iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_server_forgets_what_is_past_its_bounds_by_itself() {
    let world = World::empty();
    let mut server = Server::start(&world);
    for number in 1..=5 {
        let dockerfile = format!("FROM base\nRUN echo {number} >/number\n");
        server.build(&world, &dockerfile, &["-t", "app"]).ok();
    }
    let all = ids(&server, &world);
    assert_eq!(all.len(), 5);
    server.run(&world, &["builds", "pin", &all[4]]).ok();

    server.restart_with(&world, &["--retention", "records.count=2"]);
    // The newest two, of which its tag leads to one, and what is pinned.
    let wanted: Vec<&String> = [0, 1, 4].map(|i| &all[i]).into();
    let until = Instant::now() + PATIENCE;
    loop {
        let left = ids(&server, &world);
        assert!(wanted.iter().all(|id| left.contains(id)), "{left:?} of {all:?}");
        if left.len() == wanted.len() {
            break;
        }
        assert!(Instant::now() < until, "{left:?} of {all:?}");
    }
    for gone in [&all[2], &all[3]] {
        assert_eq!(server.run(&world, &["builds", "show", gone]).code, Some(1));
    }
    let shown = |id: &str| server.run(&world, &["builds", "show", id]).ok().out;
    assert!(shown(&all[0]).contains("kept       in any case (promoted)"), "{}", shown(&all[0]));
    assert!(shown(&all[4]).contains("kept       in any case (pinned)"), "{}", shown(&all[4]));
    let wrong = server.run(&world, &["serve", "--retention", "records.size=1"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("'records.size=1'"), "{wrong:?}");
}

#[test]
fn garbage_is_collected_beside_a_server_and_without_it() {
    let world = World::empty();
    let mut server = Server::start(&world);
    world.file("data", "of the context");
    server.build(&world, "FROM base\nCOPY data /data\nRUN cat /data\n", &["-t", "app"]).ok();
    let dir = world.path("server");
    let dir = dir.to_str().unwrap();
    let gc = || world.run(&["gc", "--keep", "0s", "--data-dir", dir]).ok();
    let held = || {
        let items = world.run(&["du", "--json", "--data-dir", dir]).ok().json();
        let by_server = |i: &&serde_json::Value| {
            i["held_by"].as_array().unwrap().contains(&"the server".into())
        };
        items.iter().filter(by_server).count()
    };
    let before = held();
    assert!(before > 0);
    gc();
    assert_eq!(held(), before);
    // With no server, nothing is spared for being young.
    server.kill();
    gc();
    assert_eq!(held(), before);
    server.restart(&world);
    let log = server.run(&world, &["builds", "logs"]).ok().out;
    assert!(log.contains("of the context"), "{log}");
    let again = ["builds", "retry", "latest", "--no-cache"];
    let said = server.run(&world, &again).ok();
    assert!(said.err.contains("of the context"), "{said:?}");
}
