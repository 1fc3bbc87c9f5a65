//! Tenants, principals, tokens and the audit log.

use ashlar_core::Digest;
use ashlar_core::identity::Role;
use ashlar_records::{AuditEntry, Error, NewToken, TokenText};
use serde_json::json;
use uuid::Uuid;

use crate::common::{Database, SECOND, at, tenant};

crate::on_both! {
    tenants_and_principals_have_unique_names;
    tokens_are_good_until_they_end;
    changes_are_remembered;
    grants_are_the_tenants_own;
}

async fn tenants_and_principals_have_unique_names(db: Database) {
    let acme = db.store.add_tenant("acme", at(0)).await.unwrap();
    let other = db.store.add_tenant("Other_1", at(0)).await.unwrap();
    assert!(matches!(db.store.add_tenant("acme", at(0)).await, Err(Error::Taken { .. })));
    assert!(matches!(db.store.add_tenant("a/b", at(0)).await, Err(Error::Name(_))));
    assert_eq!(db.store.tenant_named("acme").await.unwrap(), Some(acme.clone()));
    assert_eq!(db.store.tenant(acme.id).await.unwrap(), Some(acme.clone()));
    // By code points, whatever the database's own order is: a cursor means the same on both.
    let all = db.store.tenants("", 9).await.unwrap();
    assert_eq!(all.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["Other_1", "acme"]);
    assert_eq!(db.store.tenants("Z", 9).await.unwrap().first(), Some(&acme));

    let ann = db.store.add_principal(acme.id, "ann", "ann@example.com", at(0)).await.unwrap();
    let twin = db.store.add_principal(acme.id, "ann", "x@example.com", at(0)).await;
    assert!(matches!(twin, Err(Error::Taken { .. })));
    db.store.add_principal(other.id, "ann", "ann@example.org", at(0)).await.unwrap();
    assert_eq!(db.store.principal(ann.id).await.unwrap(), Some(ann.clone()));
    assert_eq!(db.store.principal_named(acme.id, "ann").await.unwrap(), Some(ann.clone()));
    assert_eq!(db.store.principals(acme.id, "", 9).await.unwrap(), [ann]);
}

async fn tokens_are_good_until_they_end(db: Database) {
    let acme = db.store.add_tenant("acme", at(0)).await.unwrap();
    let ann = db.store.add_principal(acme.id, "ann", "a@b", at(0)).await.unwrap();
    let new = |name: &str, expires_at| NewToken {
        tenant: acme.id,
        principal: ann.id,
        role: Role::Developer,
        name: name.into(),
        expires_at,
    };
    let (short, text) = db.store.add_token(&new("ci", Some(at(SECOND))), at(0)).await.unwrap();
    assert!(text.expose().starts_with("ashlar_") && text.expose().len() == 7 + 64);
    assert!(!format!("{text:?}").contains(text.expose()));
    let good = |text: String, nanos| {
        let store = db.store.clone();
        async move { store.authenticate(&text, at(nanos)).await.unwrap() }
    };
    let text = text.expose().to_owned();
    assert_eq!(good(text.clone(), 1).await, Some(short));
    assert_eq!(good(text.clone(), SECOND).await, None);
    assert_eq!(good(text[..70].to_owned(), 1).await, None);
    assert_eq!(good("x".repeat(100_000), 1).await, None);

    let given = TokenText::new("chosen by the operator".into());
    let long = db.store.put_token(&new("admin", None), &given, at(5_000_000)).await.unwrap();
    assert_eq!(db.store.put_token(&new("twice", None), &given, at(3)).await.unwrap(), long);
    assert!(good(given.expose().to_owned(), i64::from(i32::MAX)).await.is_some());
    assert!(!db.store.revoke_token(tenant(9), long.id, at(4)).await.unwrap());
    assert!(db.store.revoke_token(acme.id, long.id, at(4)).await.unwrap());
    assert!(!db.store.revoke_token(acme.id, long.id, at(5)).await.unwrap());
    assert_eq!(good(given.expose().to_owned(), 6).await, None);
    let all = db.store.tokens(acme.id, Uuid::nil(), 9).await.unwrap();
    let names: Vec<&str> = all.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["ci", "admin"]);
    assert_eq!(all[1].revoked_at, Some(at(4)));
}

async fn changes_are_remembered(db: Database) {
    for n in 0..6 {
        let entry = AuditEntry {
            at: at(n),
            tenant: tenant((n % 2) as u8),
            principal: None,
            action: "build.cancel".into(),
            subject: format!("b{n}"),
            detail: json!({"why": "\u{0}"}),
        };
        db.store.audit(&entry).await.unwrap();
    }
    let first = db.store.audit_log(tenant(0), None, 2).await.unwrap();
    let subjects: Vec<&str> = first.iter().map(|(_, e)| e.subject.as_str()).collect();
    assert_eq!(subjects, ["b4", "b2"]);
    assert_eq!(first[0].1.detail, json!({"why": "\u{0}"}));
    let rest = db.store.audit_log(tenant(0), Some(first[1].0), 9).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(db.store.forget_audit(at(3)).await.unwrap(), 3);
    assert_eq!(db.store.audit_log(tenant(0), None, 9).await.unwrap().len(), 1);
}

async fn grants_are_the_tenants_own(db: Database) {
    let digests: Vec<Digest> = (0..700).map(|i| Digest::of(format!("{i}"))).collect();
    let (ours, theirs) = (crate::common::tenant(1), crate::common::tenant(2));
    for (tenant, digests) in
        [(ours, &digests[..600]), (theirs, &digests[590..]), (ours, &digests[..600])]
    {
        assert!(db.store.grant(tenant, digests, false, at(0)).await.unwrap());
    }
    let found = db.store.granted(ours, &digests, at(0)).await.unwrap();
    assert_eq!(found, digests[..600].iter().copied().collect());
    let found = db.store.granted(theirs, &digests[..591], at(0)).await.unwrap();
    assert_eq!(found, digests[590..591].iter().copied().collect());
    assert!(db.store.granted(ours, &[], at(0)).await.unwrap().is_empty());
}
