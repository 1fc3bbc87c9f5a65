//! Retention as the service applies and shows it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ashlar_core::Timestamp;
use ashlar_core::journal::Event;
use ashlar_core::state::State;
use ashlar_records::{SPARED_FOR, Stamped, Store, Writer};
use ashlar_service::frontends::declarative;
use ashlar_service::{
    BuildKind, Definition, Due, ErrorKind, Exempt, Mode, Node, NodeBuild, NodeWork, Recipe, Record,
    Retention, RetentionRound, RetryRequest, Role, Service, SubmitRequest, When, Why, Workflow,
    now,
};

use crate::world::{World, children, eventually, role};

crate::on_both! {
    what_goes_is_shown_ahead_and_then_goes;
    every_group_has_its_turn_before_upkeep_rests;
    levels_hold_and_only_owners_set_them;
    answers_are_there_as_long_as_their_build;
    what_a_waiting_build_stands_on_stays;
    builds_of_a_run_stay_until_it_has_ended;
    a_build_that_is_pinned_just_now_is_not_deleted;
}

async fn built(world: &World, service: &Arc<Service>, name: &str, what: &str) -> Record {
    let request = SubmitRequest::new("native", "web", name, role(what));
    let accepted = service.submit(service.admin(), request).await.unwrap();
    world.ended(service, accepted.record.submission.build).await
}

fn retention(text: &str) -> Retention {
    text.parse().unwrap()
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_nanos(time.nanos() + i64::try_from(by.as_nanos()).unwrap())
}

async fn what_goes_is_shown_ahead_and_then_goes(world: World) {
    const DAY: Duration = Duration::from_secs(86_400);
    let server = retention("records.age=30d,artifacts.age=10d");
    let service = world.open_with(|config| config.retention = server).await;
    service.start();
    let old = built(&world, &service, "a", "ok").await;
    let good = built(&world, &service, "a", "ok").await;
    let failed = built(&world, &service, "a", "fail").await;
    assert_eq!((good.state, failed.state), (State::Succeeded, State::Failed));
    let due = |record: &Record, days| {
        Some(Due { at: later(record.finished_at.unwrap(), DAY * days), why: Why::Age })
    };
    let expiry = service.expiry(&old).await.unwrap();
    assert_eq!((expiry.record, expiry.artifacts), (due(&old, 30), due(&old, 10)));
    assert_eq!((expiry.log, expiry.exempt), (expiry.record, None));
    let expiry = service.expiry(&good).await.unwrap();
    assert_eq!((expiry.exempt, expiry.record), (Some(Exempt::LastGood), None));
    let expiry = service.expiry(&failed).await.unwrap();
    assert_eq!((expiry.record, expiry.artifacts), (due(&failed, 30), None));
    // A page of them is told the same at once.
    let page = [failed.clone(), old.clone(), good.clone()];
    let told = service.expiries(&page).await.unwrap();
    for (record, told) in page.iter().zip(told) {
        assert_eq!(service.expiry(record).await.unwrap(), told);
    }

    let id = old.submission.build;
    assert_eq!(service.apply_retention(now()).await.unwrap().gone, 0);
    assert_eq!(service.apply_retention(later(now(), DAY * 11)).await.unwrap().gone, 1);
    assert!(service.row(service.admin(), id).await.unwrap().artifacts.is_empty());
    let kept = service.row(service.admin(), good.submission.build).await.unwrap();
    assert_eq!(kept.artifacts.len(), 1);
    let mut gone = 0;
    for _ in 0..3 {
        gone += service.apply_retention(later(now(), DAY * 31)).await.unwrap().gone;
    }
    assert_eq!(gone, 2);
    let error = service.row(service.admin(), id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(service.row(service.admin(), good.submission.build).await.is_ok());
    let audit = service.audit_log(service.admin(), None, 100).await.unwrap();
    assert_eq!(audit.iter().filter(|(_, e)| e.action == "retention.record").count(), 2);
    service.drain().await;
}

async fn every_group_has_its_turn_before_upkeep_rests(world: World) {
    // One round looks at 200 groups.
    const GROUPS: usize = 230;
    let service = world.open_with(|config| config.retention = retention("records.count=0")).await;
    let store = Store::open(&world.database()).await.unwrap();
    for n in 0..GROUPS {
        let mut request = SubmitRequest::new("native", &format!("scope-{n}"), "a", role("ok"));
        request.mode = Mode::External;
        let build = service.submit(service.admin(), request).await.unwrap().record.submission.build;
        let end = [Stamped::new(now(), Event::State { to: State::Cancelled })];
        store.append(build, Writer::Service, end).await.unwrap();
    }
    let rounds = [(200, false), (GROUPS - 200, true), (0, true)];
    for (gone, done) in rounds {
        let round = service.apply_retention(now()).await.unwrap();
        assert_eq!(round, RetentionRound { gone, done });
    }
    // Nothing is left of groups without builds that would have to be looked at.
    assert!(store.retention_groups(None, 1).await.unwrap().is_empty());
    service.close().await;
}

async fn levels_hold_and_only_owners_set_them(world: World) {
    let service = world.open_with(|c| c.retention = retention("records.age=30d")).await;
    service.start();
    let admin = service.admin().clone();
    service.set_dialect_retention("native", retention("records.count=5,artifacts.count=1"));
    let holds = |scope: &'static str| {
        let (service, admin) = (Arc::clone(&service), admin.clone());
        async move { service.retention(&admin, scope, "native").await.unwrap().to_string() }
    };
    assert_eq!(holds("web").await, "records.age=2592000s,records.count=5,artifacts.count=1");
    service.set_retention(&admin, None, retention("records.count=2")).await.unwrap();
    let web = retention("records.age=unlimited,artifacts.count=unlimited");
    service.set_retention(&admin, Some("web"), web).await.unwrap();
    assert_eq!(holds("web").await, web_holds());
    assert_eq!(holds("api").await, "records.age=2592000s,records.count=2,artifacts.count=1");
    let said = service.retentions(&admin, None, 10).await.unwrap();
    assert_eq!(said.iter().map(|(s, _)| s.as_deref()).collect::<Vec<_>>(), [None, Some("web")]);
    let small = ashlar_service::Actor { role: Role::Developer, ..admin.clone() };
    let refused = service.set_retention(&small, None, Retention::default()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden);
    let mut builds = Vec::new();
    for _ in 0..4 {
        builds.push(built(&world, &service, "same", "fail").await);
    }
    let expiry = service.expiry(&builds[0]).await.unwrap();
    assert_eq!(expiry.record.map(|d| d.why), Some(Why::Count));
    assert_eq!(service.expiry(&builds[3]).await.unwrap().record, None);
    assert_eq!(service.apply_retention(now()).await.unwrap().gone, 2);
    service.drain().await;
}

/// Lets all rights to blobs look as if nobody had used them for long.
fn age_grants(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => age_grants(&path),
            false => {
                let file = std::fs::File::open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        }
    }
}

async fn answers_are_there_as_long_as_their_build(world: World) {
    let service = world.open().await;
    service.start();
    let first = built(&world, &service, "a", "asks").await;
    let answers = first.answers.unwrap();
    let store = Store::open(&world.database()).await.unwrap();
    let held = store.held_blobs(None, 9).await.unwrap();
    assert_eq!(held.iter().map(|(blob, _)| *blob).collect::<Vec<_>>(), [answers]);
    age_grants(&world.data_dir().join("grants"));
    assert_eq!(service.sweep_grants().await.unwrap(), 0);
    let id = first.submission.build;
    let again = service.retry(service.admin(), id, RetryRequest::default()).await.unwrap();
    let definition = Definition::of(&again.record).unwrap();
    assert_eq!(definition.answers, Some(answers));
    let again = world.ended(&service, again.record.submission.build).await;
    assert_eq!((again.state, again.answers), (State::Succeeded, Some(answers)));
    // With the builds go the answers.
    age_grants(&world.data_dir().join("grants"));
    for build in [id, again.submission.build] {
        service.delete(service.admin(), build).await.unwrap();
    }
    assert_eq!(service.sweep_grants().await.unwrap(), 1);
    service.drain().await;
}

async fn what_a_waiting_build_stands_on_stays(world: World) {
    let service = world.open_with(|config| config.slots = 1).await;
    service.start();
    let admin = service.admin().clone();
    let base = built(&world, &service, "base", "ok").await.submission.build;
    let newer = built(&world, &service, "base", "ok").await.submission.build;
    let hold = SubmitRequest::new("native", "web", "hold", role("hold"));
    let hold = service.submit(&admin, hold).await.unwrap().record.submission.build;
    eventually("the slot is taken", || world.stage.ran().contains(&"hold".to_owned())).await;
    let steps =
        declarative::Definition::new(declarative::Base::Image("scratch".into()), Vec::new());
    let definition = Definition::new(Recipe::OnBuild { base, owner: None, steps });
    let child = SubmitRequest::new("native", "web", "child", definition);
    let child = service.submit(&admin, child).await.unwrap().record.submission.build;
    service.set_retention(&admin, None, retention("artifacts.count=1")).await.unwrap();
    assert_eq!(service.apply_retention(now()).await.unwrap().gone, 0);
    let row = service.row(&admin, base).await.unwrap();
    assert_eq!(row.artifacts.len(), 1);
    assert_eq!(service.expiry(&row).await.unwrap().exempt, Some(Exempt::Needed));
    world.stage.release("hold");
    world.ended(&service, hold).await;
    assert_eq!(world.ended(&service, child).await.state, State::Succeeded);
    let time = later(now(), 2 * SPARED_FOR);
    assert_eq!(service.apply_retention(time).await.unwrap().gone, 1);
    assert!(service.row(&admin, base).await.unwrap().artifacts.is_empty());
    assert_eq!(service.row(&admin, newer).await.unwrap().artifacts.len(), 1);
    service.drain().await;
}

async fn builds_of_a_run_stay_until_it_has_ended(world: World) {
    let service = world.open().await;
    service.start();
    let admin = service.admin().clone();
    let node = |id: &str, needs: &[&str], what: &str| Node {
        id: id.to_owned(),
        needs: needs.iter().map(|n| (*n).to_owned()).collect(),
        when: When::Always,
        attempts: 1,
        optional: true,
        wait: true,
        work: NodeWork::Build(Box::new(NodeBuild {
            definition: role(what),
            on: None,
            scope: None,
            name: None,
            backend: None,
            labels: Default::default(),
            secrets: Vec::new(),
        })),
    };
    let nodes = vec![node("bad", &[], "fail"), node("hold", &["bad"], "hold")];
    let workflow = Workflow { nodes, ..Workflow::default() };
    let mut request =
        SubmitRequest::new("native", "run", "run", Definition::new(Recipe::Workflow(workflow)));
    request.kind = BuildKind::Workflow;
    let run = service.submit(&admin, request).await.unwrap().record.submission.build;
    eventually("the second one runs", || world.stage.ran().contains(&"hold".to_owned())).await;
    let bad = children(&service, &admin, run).await.remove(0);
    service.set_retention(&admin, None, retention("records.count=0")).await.unwrap();
    assert_eq!(service.apply_retention(now()).await.unwrap().gone, 0);
    let expiry = service.expiry(&bad).await.unwrap();
    assert_eq!((bad.name.as_str(), expiry.exempt), ("bad", Some(Exempt::Needed)));
    // What is said for the run's scope is said for its builds too.
    service.set_retention(&admin, None, Retention::default()).await.unwrap();
    assert_eq!(service.expiry(&bad).await.unwrap().record, None);
    service.set_retention(&admin, Some("run"), retention("records.count=0")).await.unwrap();
    world.stage.release("hold");
    assert_eq!(world.ended(&service, run).await.state, State::Succeeded);
    let time = later(now(), 2 * SPARED_FOR);
    assert_eq!(service.apply_retention(time).await.unwrap().gone, 1);
    assert!(service.row(&admin, bad.submission.build).await.is_err());
    service.drain().await;
}

async fn a_build_that_is_pinned_just_now_is_not_deleted(world: World) {
    let service = world.open().await;
    service.start();
    let admin = service.admin().clone();
    for _ in 0..20 {
        let build = built(&world, &service, "a", "ok").await.submission.build;
        // Both have looked at the build before either writes.
        let (pinned, deleted) =
            tokio::join!(service.pin(&admin, build, true), service.delete(&admin, build));
        match service.row(&admin, build).await {
            Ok(row) => {
                assert!(row.pinned && pinned.is_ok());
                assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Conflict);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(pinned.is_err() && deleted.is_ok());
            }
        }
    }
    service.drain().await;
}

fn web_holds() -> String {
    "records.age=unlimited,records.count=2,artifacts.count=unlimited".to_owned()
}
