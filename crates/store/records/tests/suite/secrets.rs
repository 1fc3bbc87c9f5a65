//! Secrets at rest.

use ashlar_core::state::State;
use ashlar_records::{Error, KeyRing, Sealed, Secret, Submit};

use crate::common::{Database, at, claim, holding, stamped, state, submission, tenant};

crate::on_both! {
    held_secrets_stay_until_they_are_erased;
    build_secrets_end_with_the_build;
    kept_ones_end_with_the_record;
    keys_rotate;
    a_database_knows_its_key;
}

fn ring(digits: &[&str]) -> KeyRing {
    let keys: Vec<String> = digits.iter().map(|d| d.repeat(32)).collect();
    KeyRing::parse(&keys.join(",")).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

async fn held_secrets_stay_until_they_are_erased(db: Database) {
    let keys = ring(&["a1"]);
    for (name, value) in [("token", "one"), ("other", "two"), ("token", "three")] {
        let place = (tenant(1), "trigger:1", name);
        db.store.hold_secret(&keys, place, &secret(value), at(1)).await.unwrap();
    }
    let get = |n, name: &'static str| {
        let (store, keys) = (db.store.clone(), keys.clone());
        async move { store.held_secret(&keys, (tenant(n), "trigger:1", name)).await.unwrap() }
    };
    assert_eq!(get(1, "token").await, Some(secret("three")));
    assert_eq!(get(2, "token").await, None);
    let names = db.store.held_secret_names(tenant(1), "trigger:1").await.unwrap();
    assert_eq!(names, [("other".to_owned(), at(1)), ("token".to_owned(), at(1))]);
    let erase = |name| db.store.erase_held_secrets(tenant(1), "trigger:1", name);
    assert_eq!(erase(Some("token")).await.unwrap(), 1);
    assert_eq!(get(1, "token").await, None);
    assert_eq!(erase(None).await.unwrap(), 1);
    let huge = Secret::new(vec![0; (1 << 20) + 1]);
    let error = db.store.hold_secret(&keys, (tenant(1), "t", "x"), &huge, at(1)).await;
    assert!(matches!(error, Err(Error::TooLarge { .. })));
}

async fn a_database_knows_its_key(db: Database) {
    db.store.check_key(&ring(&["a1"])).await.unwrap();
    db.store.check_key(&ring(&["a1"])).await.unwrap();
    let other = db.store.check_key(&ring(&["b2"])).await;
    assert!(matches!(other, Err(Error::OtherKey)), "{other:?}");
    // A new key in front of the old one takes its place.
    db.store.check_key(&ring(&["b2", "a1"])).await.unwrap();
    db.store.check_key(&ring(&["b2"])).await.unwrap();
    assert!(db.store.check_key(&ring(&["a1"])).await.is_err());
}

async fn build_secrets_end_with_the_build(db: Database) {
    let keys = ring(&["a1"]);
    let submission = submission();
    let build = submission.build;
    let sealed = Sealed::for_build(&keys, build, "npm", &secret("needle-7361")).unwrap();
    let submit = Submit { secrets: vec![sealed], ..Submit::new(submission) };
    db.store.submit(&submit, at(0)).await.unwrap();
    // Only the worker that holds the build gets them.
    assert!(db.store.build_secrets(&keys, build, 0).await.unwrap().is_empty());
    let record = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    let got = db.store.build_secrets(&keys, build, record.fence).await.unwrap();
    assert_eq!(got, [("npm".to_owned(), secret("needle-7361"))]);
    assert!(db.store.build_secrets(&keys, build, record.fence + 1).await.unwrap().is_empty());
    let error = db.store.build_secrets(&ring(&["b2"]), build, record.fence).await.unwrap_err();
    assert!(matches!(&error, Error::Sealed(name) if name == "npm"), "{error}");
    db.store.append(build, holding(&record), [stamped(2, state(State::Cancelled))]).await.unwrap();
    assert!(db.store.build_secrets(&keys, build, record.fence).await.unwrap().is_empty());
    if !db.place.starts_with("postgres") {
        for file in std::fs::read_dir(std::path::Path::new(&db.place).parent().unwrap()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(11).any(|w| w == b"needle-7361"));
        }
    }
}

async fn kept_ones_end_with_the_record(db: Database) {
    let keys = ring(&["a1"]);
    let submission = submission();
    let build = submission.build;
    let seal = |name| Sealed::for_build(&keys, build, name, &secret(name)).unwrap();
    let secrets = vec![seal("npm"), seal("kept/envs")];
    db.store.submit(&Submit { secrets, ..Submit::new(submission) }, at(0)).await.unwrap();
    let record = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    assert_eq!(db.store.build_secrets(&keys, build, record.fence).await.unwrap().len(), 2);
    db.store.append(build, holding(&record), [stamped(2, state(State::Cancelled))]).await.unwrap();
    let kept = |name| db.store.kept_secret(&keys, build, name);
    assert_eq!(kept("kept/envs").await.unwrap(), Some(secret("kept/envs")));
    assert_eq!(kept("npm").await.unwrap(), None);
    assert_eq!(db.store.forget(&[build]).await.unwrap(), [build]);
    assert_eq!(kept("kept/envs").await.unwrap(), None);
}

async fn keys_rotate(db: Database) {
    let (old, both, new) = (ring(&["a1"]), ring(&["b2", "a1"]), ring(&["b2"]));
    let place = (tenant(1), "registry", "password");
    db.store.hold_secret(&old, place, &secret("x"), at(1)).await.unwrap();
    let submission = submission();
    let sealed = Sealed::for_build(&old, submission.build, "npm", &secret("y")).unwrap();
    let submit = Submit { secrets: vec![sealed], ..Submit::new(submission) };
    let build = db.store.submit(&submit, at(0)).await.unwrap().record.submission.build;
    assert!(db.store.rotate_secrets(&new).await.is_err());
    assert_eq!(db.store.rotate_secrets(&both).await.unwrap(), 2);
    assert_eq!(db.store.rotate_secrets(&both).await.unwrap(), 0);
    assert_eq!(db.store.held_secret(&new, place).await.unwrap(), Some(secret("x")));
    let record = db.store.claim(&claim(1), at(1)).await.unwrap().unwrap();
    let got = db.store.build_secrets(&new, build, record.fence).await.unwrap();
    assert_eq!(got, [("npm".to_owned(), secret("y"))]);
}
