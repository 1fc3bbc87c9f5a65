//! What dialects keep: names, numbers and documents.

use ashlar_core::state::State;
use ashlar_records::{
    Document, DocumentType, Error, MovedName, Namespace, NewAlias, NewDocument, NewObject,
    NumberedAlias, Submit, Writer,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::common::{Database, at, build_id, stamped, state, submission, tenant};

crate::on_both! {
    names_stand_for_one_thing;
    numbers_are_drawn_once;
    documents_are_found_by_their_keys;
    everything_comes_with_the_build_or_not_at_all;
    objects_come_with_the_build_and_stay_when_it_goes;
    names_move_with_their_document_or_not_at_all;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trigger {
    name: String,
    branch: String,
}

impl DocumentType for Trigger {
    const DIALECT: &'static str = "cloudflare";
    const KIND: &'static str = "trigger";

    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name.clone()), ("branch", self.branch.clone())]
    }
}

fn trigger(name: &str, branch: &str) -> Trigger {
    Trigger { name: name.into(), branch: branch.into() }
}

fn runs(n: u8) -> Namespace {
    Namespace::new("northflank", Some(tenant(n)), "run")
}

fn alias(n: u8, alias: &str) -> NewAlias {
    NewAlias::own(runs(n), alias.into())
}

async fn names_stand_for_one_thing(db: Database) {
    let (a, b) = (build_id().uuid(), build_id().uuid());
    db.store.add_alias(&alias(1, "nightly"), a).await.unwrap();
    let error = db.store.add_alias(&alias(1, "nightly"), b).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    db.store.add_alias(&alias(2, "nightly"), b).await.unwrap();
    assert_eq!(db.store.resolve(&runs(1), "nightly").await.unwrap(), Some(a));
    assert_eq!(db.store.resolve(&runs(2), "nightly").await.unwrap(), Some(b));
    assert_eq!(db.store.resolve(&runs(3), "nightly").await.unwrap(), None);
    let names = db.store.aliases_of("northflank", a).await.unwrap();
    assert_eq!(names, [("run".to_owned(), "nightly".to_owned())]);
    assert!(db.store.remove_alias(&runs(1), "nightly").await.unwrap());
    assert!(!db.store.remove_alias(&runs(1), "nightly").await.unwrap());
    assert_eq!(db.store.resolve(&runs(1), "nightly").await.unwrap(), None);
}

async fn numbers_are_drawn_once(db: Database) {
    let counter = Namespace::new("polyaxon", None, "id");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, counter) = (db.store.clone(), counter.clone());
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..5 {
                    mine.push(store.next_number(&counter).await.unwrap());
                }
                assert!(mine.is_sorted());
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=40).collect::<Vec<u64>>());
    let other = Namespace::new("polyaxon", Some(tenant(1)), "id");
    assert_eq!(db.store.next_number(&other).await.unwrap(), 1);
}

async fn documents_are_found_by_their_keys(db: Database) {
    let ids: Vec<Uuid> = (0..5).map(|_| build_id().uuid()).collect();
    let own = Some(tenant(1));
    for (n, id) in ids.iter().enumerate() {
        let value = trigger(&format!("t{n}"), if n % 2 == 0 { "main" } else { "dev" });
        let new = NewDocument::new(own, *id, &value).unwrap();
        db.store.add_document(&new, at(n as i64)).await.unwrap();
    }
    let new = NewDocument::new(own, ids[0], &trigger("x", "y")).unwrap();
    assert!(matches!(db.store.add_document(&new, at(9)).await, Err(Error::Taken { .. })));

    let some = [ids[3], build_id().uuid(), ids[1]];
    let mut found = db.store.documents_of::<Trigger>(own, &some).await.unwrap();
    found.sort_by_key(|d| d.position);
    assert_eq!(found.iter().map(|d| d.id).collect::<Vec<_>>(), [ids[1], ids[3]]);
    assert!(db.store.documents_of::<Trigger>(Some(tenant(2)), &some).await.unwrap().is_empty());

    let by = |branch: &'static str, after: i64, limit| {
        let store = db.store.clone();
        async move {
            let found = store.documents_by::<Trigger>(own, ("branch", branch), after, limit).await;
            found.unwrap()
        }
    };
    let names = |found: &[Document<Trigger>]| {
        found.iter().map(|d| d.value.name.clone()).collect::<Vec<_>>()
    };
    let first = by("main", 0, 2).await;
    assert_eq!(names(&first), ["t0", "t2"]);
    assert_eq!(names(&by("main", first[1].position, 2).await), ["t4"]);

    let first = db.store.document::<Trigger>(own, ids[0]).await.unwrap().unwrap();
    assert_eq!((first.version, first.created_at, first.build), (1, at(0), None));
    let changed = NewDocument::new(own, ids[0], &trigger("t0", "dev")).unwrap();
    assert!(!db.store.replace_document(&changed, 2, at(10)).await.unwrap());
    assert!(db.store.replace_document(&changed, 1, at(10)).await.unwrap());
    assert!(!db.store.replace_document(&changed, 1, at(11)).await.unwrap());
    assert_eq!(names(&by("main", 0, 9).await), ["t2", "t4"]);
    assert_eq!(names(&by("dev", 0, 9).await), ["t0", "t1", "t3"]);

    assert!(db.store.document::<Trigger>(Some(tenant(2)), ids[0]).await.unwrap().is_none());
    assert!(db.store.remove_document::<Trigger>(own, ids[1]).await.unwrap());
    assert!(!db.store.remove_document::<Trigger>(own, ids[1]).await.unwrap());
    assert_eq!(names(&by("dev", 0, 9).await), ["t0", "t3"]);
    assert_eq!(db.store.documents::<Trigger>(own, 0, 99).await.unwrap().len(), 4);
}

async fn everything_comes_with_the_build_or_not_at_all(db: Database) {
    let submit = || {
        let submission = submission();
        let document = build_id().uuid();
        let document = NewDocument::new(None, document, &trigger("of a build", "main")).unwrap();
        Submit {
            aliases: vec![alias(1, "latest")],
            numbered: vec![NumberedAlias {
                namespace: Namespace::new("polyaxon", None, "run"),
                counter: Namespace::new("polyaxon", None, "id"),
            }],
            documents: vec![document],
            ..Submit::new(submission)
        }
    };
    let accepted = db.store.submit(&submit(), at(0)).await.unwrap();
    let build = accepted.record.submission.build;
    assert_eq!(accepted.numbers, [1]);
    let polyaxon = Namespace::new("polyaxon", None, "run");
    assert_eq!(db.store.resolve(&polyaxon, "1").await.unwrap(), Some(build.uuid()));

    // The alias is taken: no build, no number, no document.
    let refused = submit();
    assert!(db.store.submit(&refused, at(1)).await.is_err());
    assert_eq!(db.store.get(refused.submission.build).await.unwrap(), None);
    let documents = db.store.documents::<Trigger>(None, 0, 9).await.unwrap();
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0].build, Some(build));
    let counter = Namespace::new("polyaxon", None, "id");
    assert_eq!(db.store.next_number(&counter).await.unwrap(), 2);

    // What came with the build goes with it.
    let end = [stamped(5, state(State::Skipped))];
    db.store.append(build, Writer::Service, end).await.unwrap();
    assert_eq!(db.store.forget(&[build]).await.unwrap(), [build]);
    assert_eq!(db.store.resolve(&polyaxon, "1").await.unwrap(), None);
    assert!(db.store.documents::<Trigger>(None, 0, 9).await.unwrap().is_empty());
    let by = db.store.documents_by::<Trigger>(None, ("branch", "main"), 0, 9).await.unwrap();
    assert!(by.is_empty());
}

async fn objects_come_with_the_build_and_stay_when_it_goes(db: Database) {
    let submit = |id: Uuid| {
        let document = NewDocument::new(None, id, &trigger("lasting", "main")).unwrap();
        let object = NewObject { document, names: vec![alias(1, "lasting")] };
        Submit { objects: vec![object], ..Submit::new(submission()) }
    };
    let (first, second) = (build_id().uuid(), build_id().uuid());
    let accepted = db.store.submit(&submit(first), at(0)).await.unwrap();
    // The name is in use: neither the build nor the document is there.
    let refused = submit(second);
    let error = db.store.submit(&refused, at(1)).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    assert_eq!(db.store.get(refused.submission.build).await.unwrap(), None);
    assert!(db.store.document::<Trigger>(None, second).await.unwrap().is_none());
    let build = accepted.record.submission.build;
    let end = [stamped(5, state(State::Skipped))];
    db.store.append(build, Writer::Service, end).await.unwrap();
    assert_eq!(db.store.forget(&[build]).await.unwrap(), [build]);
    let kept = db.store.document::<Trigger>(None, first).await.unwrap().unwrap();
    assert_eq!(kept.build, None);
    assert_eq!(db.store.resolve(&runs(1), "lasting").await.unwrap(), Some(first));
}

async fn names_move_with_their_document_or_not_at_all(db: Database) {
    let (id, a, b) = (build_id().uuid(), build_id().uuid(), build_id().uuid());
    let document = NewDocument::new(None, id, &trigger("t", "main")).unwrap();
    db.store.add_document(&document, at(0)).await.unwrap();
    let name = |word: &str, target| MovedName { alias: alias(1, word), target };
    let replace = async |version, names: &[MovedName]| {
        db.store.replace_document_with_names(&document, version, names, at(1)).await.unwrap()
    };
    assert!(replace(1, &[name("x", Some(a)), name("y", Some(a))]).await);
    assert!(!replace(1, &[name("x", Some(b)), name("y", None)]).await, "somebody was faster");
    assert_eq!(db.store.resolve(&runs(1), "x").await.unwrap(), Some(a));
    assert!(replace(2, &[name("x", Some(b)), name("y", None), name("z", None)]).await);
    assert_eq!(db.store.resolve(&runs(1), "x").await.unwrap(), Some(b));
    assert_eq!(db.store.resolve(&runs(1), "y").await.unwrap(), None);
}
