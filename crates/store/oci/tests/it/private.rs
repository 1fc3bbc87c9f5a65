//! What one tenant pulled with its credentials, and what others get of it.

mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ashlar_core::{Digest, Platform};
use ashlar_oci::{Credential, Images, PullError, PullPolicy, Reference, ResolvedImage, Transfer};

use crate::support::{Content, Fake, Local, Reply};

/// `me:secret`, as a header.
const KNOWN: &str = "Basic bWU6c2VjcmV0";
const LAYER: &[u8] = b"a private layer";

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// A registry with the image `app:1`, for those who show credentials while `closed`.
fn with_door(closed: &Arc<AtomicBool>) -> (Fake, Digest, Digest) {
    let mut content = Content::default();
    let (manifest, layers) = content.image("1", "linux/amd64", &[LAYER]);
    let closed = Arc::clone(closed);
    let fake = Fake::start(move |r| {
        if closed.load(Ordering::Relaxed) && r.header("authorization") != Some(KNOWN) {
            return Reply::new(401).header("www-authenticate", "Basic realm=\"here\"");
        }
        content.answer(r)
    });
    (fake, manifest, layers[0].digest)
}

/// The view of a tenant that has a login for the registry.
fn owner(local: &Local, fake: &Fake) -> Images {
    let credential = Credential::Basic { username: "me".into(), password: "secret".into() };
    local.images.for_tenant("owner", BTreeMap::from([(fake.host.clone(), credential)]))
}

fn pull(view: &Images, text: &str) -> Result<ResolvedImage, PullError> {
    let reference: Reference = text.parse().unwrap();
    let image = view.resolve(&reference, &amd64(), PullPolicy::Default, &Transfer::quiet())?;
    view.fetch_layer(&image, 0, &Transfer::quiet())?;
    Ok(image)
}

#[track_caller]
fn refused(result: Result<ResolvedImage, PullError>) {
    let error = result.unwrap_err();
    assert!(error.is_refused(), "{error}");
}

#[test]
fn another_tenant_gets_it_neither_by_tag_nor_by_digest() {
    let (fake, manifest, layer) = with_door(&Arc::new(AtomicBool::new(true)));
    let local = Local::new();
    let (tag, pinned) = (format!("{}/app:1", fake.host), format!("{}/app@{manifest}", fake.host));
    let stranger = local.images.for_tenant("stranger", BTreeMap::new());
    refused(pull(&stranger, &tag));
    pull(&owner(&local, &fake), &tag).unwrap();
    assert!(local.images.blobs().has(&layer).unwrap());
    for name in [&tag, &pinned] {
        refused(pull(&stranger, name));
    }
    assert!(!stranger.may_read(&layer).unwrap());
    // The tenant itself, in a later build with no credentials: what it has is its own.
    let later = local.images.for_tenant("owner", BTreeMap::new());
    assert!(later.may_read(&layer).unwrap());
    pull(&later, &pinned).unwrap();
    refused(pull(&later, &tag));
}

#[test]
fn a_registry_that_is_down_is_no_way_in() {
    let (fake, ..) = with_door(&Arc::new(AtomicBool::new(true)));
    let local = Local::new();
    let tag = format!("{}/app:1", fake.host);
    pull(&owner(&local, &fake), &tag).unwrap();
    let reference: Reference = tag.parse().unwrap();
    assert_eq!(local.images.pulled(&reference).unwrap(), None, "the tag is remembered for all");
    let offline = local.images.resolve(&reference, &amd64(), PullPolicy::Local, &Transfer::quiet());
    assert!(matches!(offline, Err(PullError::NotLocal { .. })), "{offline:?}");
}

/// A registry of the stranger's own that names the private layer and hands out `blob` for it.
fn spy(blob: Option<&'static [u8]>) -> Fake {
    let mut content = Content::default();
    let (_, layers) = content.image("1", "linux/amd64", &[LAYER]);
    match blob {
        Some(bytes) => content.blobs.insert(layers[0].digest.to_string(), bytes.to_vec()),
        None => content.blobs.remove(&layers[0].digest.to_string()),
    };
    Fake::start(move |r| content.answer(r))
}

#[test]
fn to_know_a_digest_is_not_enough() {
    let (fake, ..) = with_door(&Arc::new(AtomicBool::new(true)));
    let local = Local::new();
    pull(&owner(&local, &fake), &format!("{}/app:1", fake.host)).unwrap();
    let stranger = local.images.for_tenant("stranger", BTreeMap::new());
    for wrong in [None, Some(b"some other bytes".as_slice())] {
        let spy = spy(wrong);
        let error = pull(&stranger, &format!("{}/app:1", spy.host)).unwrap_err();
        assert!(matches!(error, PullError::Registry(_)), "{error}");
    }
}

#[test]
fn who_has_the_bytes_may_have_them_and_what_is_public_stays_so() {
    let closed = Arc::new(AtomicBool::new(true));
    let (fake, _, layer) = with_door(&closed);
    let local = Local::new();
    let tag = format!("{}/app:1", fake.host);
    pull(&owner(&local, &fake), &tag).unwrap();
    let view = |tenant: &str| local.images.for_tenant(tenant, BTreeMap::new());
    assert!(!view("third").may_read(&layer).unwrap());
    closed.store(false, Ordering::Relaxed);
    pull(&view("stranger"), &tag).unwrap();
    assert!(view("third").may_read(&layer).unwrap(), "it came with no credentials");
    let before = fake.log().len();
    pull(&view("third"), &tag).unwrap();
    assert_eq!(fake.log().len() - before, 1, "nothing is proven twice");
    // Pulled with credentials again, it does not become private.
    pull(&owner(&local, &fake), &tag).unwrap();
    assert!(view("third").may_read(&layer).unwrap());
}

#[test]
fn what_a_build_made_is_its_tenants_until_a_registry_gives_it() {
    let mut content = Content::default();
    let (manifest, layers) = content.image("1", "linux/amd64", &[LAYER]);
    let local = Local::new();
    // What packaging leaves: all blobs in the store, from no registry.
    for bytes in content.blobs.values().chain(content.manifests.values().map(|m| &m.1)) {
        local.images.blobs().put_bytes(bytes).unwrap();
    }
    for digest in [manifest, layers[0].digest] {
        local.images.note_made("owner", &digest, true).unwrap();
    }
    let view = |tenant: &str| local.images.for_tenant(tenant, BTreeMap::new());
    let nothing = Fake::start(|_| Reply::new(404));
    let pinned = format!("{}/app@{manifest}", nothing.host);
    let error = pull(&view("stranger"), &pinned).unwrap_err();
    assert!(matches!(&error, PullError::Registry(_)), "{error}");
    pull(&view("owner"), &pinned).unwrap();
    // Somebody makes the same: both have it.
    local.images.note_made("second", &manifest, false).unwrap();
    assert!(view("second").may_read(&manifest).unwrap());
    assert!(!view("stranger").may_read(&manifest).unwrap());
    // Pushed where everybody may pull it, it is everybody's.
    let public = Fake::start(move |r| content.answer(r));
    pull(&view("stranger"), &format!("{}/app@{manifest}", public.host)).unwrap();
    assert!(view("third").may_read(&manifest).unwrap());
    // What nobody is marked for stays so when somebody makes it as well.
    local.images.note_made("owner", &manifest, false).unwrap();
    assert!(view("third").may_read(&manifest).unwrap());
}
