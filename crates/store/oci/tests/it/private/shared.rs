//! Machines that share a blob store, and know of each other's marks.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::SystemTime;

use ashlar_blobs::{BlobInfo, BlobStore, Remote, RemoteError};
use ashlar_oci::pull::{Marks, Reader, Readership};
use ashlar_oci::{ImageStore, Registry};

use super::*;
use crate::support::settings;

/// A blob store in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<Digest, Vec<u8>>>);

impl Remote for Memory {
    fn check(&self) -> Result<(), RemoteError> {
        Ok(())
    }

    fn look(&self, digest: &Digest) -> Result<Option<BlobInfo>, RemoteError> {
        let info = |bytes: &Vec<u8>| BlobInfo {
            digest: *digest,
            size: bytes.len() as u64,
            modified: SystemTime::now(),
        };
        Ok(self.0.lock().unwrap().get(digest).map(info))
    }

    fn fetch(&self, digest: &Digest, from: u64, to: &mut dyn Write) -> Result<(), RemoteError> {
        let blobs = self.0.lock().unwrap();
        let bytes = blobs.get(digest).ok_or(RemoteError::Missing(*digest))?;
        Ok(to.write_all(&bytes[usize::try_from(from).unwrap()..])?)
    }

    fn upload(
        &self,
        digest: &Digest,
        content: &mut (dyn Read + Send),
        _: u64,
    ) -> Result<(), RemoteError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.0.lock().unwrap().insert(*digest, bytes);
        Ok(())
    }

    fn remove(&self, digest: &Digest) -> Result<bool, RemoteError> {
        Ok(self.0.lock().unwrap().remove(digest).is_some())
    }

    fn list(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), RemoteError> {
        let digests: Vec<Digest> = self.0.lock().unwrap().keys().copied().collect();
        for digest in digests {
            if self.look(&digest)?.is_some_and(|info| visit(info).is_break()) {
                break;
            }
        }
        Ok(())
    }
}

/// Marks in memory; nobody's and everybody's have names that no tenant has.
#[derive(Debug, Default)]
struct Known(Mutex<HashSet<(Digest, String)>>);

impl Marks for Known {
    fn readership(&self, tenant: &str, digest: &Digest) -> io::Result<Readership> {
        let marks = self.0.lock().unwrap();
        let has = |name: &str| marks.contains(&(*digest, name.to_owned()));
        Ok(match () {
            () if has(tenant) || has("everybody") => Readership::Reader,
            () if marks.iter().any(|(marked, _)| marked == digest) => Readership::Others,
            () => Readership::Unknown,
        })
    }

    fn add(&self, reader: Reader<'_>, digest: &Digest, if_marked: bool) -> io::Result<()> {
        let mut marks = self.0.lock().unwrap();
        if if_marked && !marks.iter().any(|(marked, _)| marked == digest) {
            return Ok(());
        }
        let name = match reader {
            Reader::Tenant(name) => name,
            Reader::Everybody => "everybody",
            Reader::Nobody => "nobody",
        };
        marks.insert((*digest, name.to_owned()));
        Ok(())
    }
}

/// Some machines.
#[derive(Default)]
struct Cluster {
    blobs: Arc<Memory>,
    marks: Arc<Known>,
}

impl Cluster {
    fn node(&self) -> Local {
        let dir = tempfile::tempdir().unwrap();
        let remote: Arc<dyn Remote> = self.blobs.clone();
        let blobs = BlobStore::open_with(dir.path(), Some(remote)).unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let images = Images::new(blobs, store, Registry::new(settings()));
        Local { dir, images: images.with_marks(self.marks.clone()) }
    }
}

#[test]
fn what_one_machine_fetched_with_credentials_is_private_on_all() {
    let (fake, manifest, layer) = with_door(&Arc::new(AtomicBool::new(true)));
    let cluster = Cluster::default();
    let (one, two) = (cluster.node(), cluster.node());
    let (tag, pinned) = (format!("{}/app:1", fake.host), format!("{}/app@{manifest}", fake.host));
    pull(&owner(&one, &fake), &tag).unwrap();
    one.images.blobs().sync().unwrap();
    assert!(two.images.blobs().has(&layer).unwrap(), "the store has it for all machines");
    // The stranger's own registry names the layer, and cannot give it.
    let stranger = two.images.for_tenant("stranger", BTreeMap::new());
    let spy = spy(None);
    let named = pull(&stranger, &format!("{}/app:1", spy.host)).unwrap_err();
    assert!(matches!(named, PullError::Registry(_)), "{named}");
    refused(pull(&stranger, &pinned));
    assert!(!two.images.blobs().has_here(&layer).unwrap());
    // The tenant itself has it from the store, with no credentials, on any machine.
    let (later, before) = (two.images.for_tenant("owner", BTreeMap::new()), fake.log().len());
    pull(&later, &pinned).unwrap();
    assert_eq!(fake.log().len(), before, "nothing is asked for again");
    refused(pull(&stranger, &pinned));
}

#[test]
fn what_nobody_is_marked_for_is_no_strangers_either() {
    let cluster = Cluster::default();
    let (one, two, three) = (cluster.node(), cluster.node(), cluster.node());
    // A file of a context, for example.
    let uploaded = one.images.blobs().put_bytes(LAYER).unwrap().digest;
    one.images.blobs().keep(&[uploaded]).unwrap();
    let stranger = two.images.for_tenant("stranger", BTreeMap::new());
    let spy = spy(None);
    // A build does not put the fetch off either: later nobody asks whose build it was.
    assert!(
        !stranger.may_wait(&uploaded).unwrap() && stranger.may_wait(&Digest::of("no")).unwrap()
    );
    pull(&stranger, &format!("{}/app:1", spy.host)).unwrap_err();
    assert!(!two.images.blobs().has_here(&uploaded).unwrap());
    // Once a registry has given it to everybody, every machine takes it from the store.
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[LAYER]);
    let public = Fake::start(move |r| content.answer(r));
    let tag = format!("{}/app:1", public.host);
    pull(&stranger, &tag).unwrap();
    assert!(three.images.for_tenant("third", BTreeMap::new()).may_wait(&uploaded).unwrap());
    let asked = public.count("GET", &uploaded.to_string());
    pull(&three.images.for_tenant("third", BTreeMap::new()), &tag).unwrap();
    assert_eq!((asked, public.count("GET", &uploaded.to_string())), (1, 1));
}

#[test]
fn marks_of_one_machine_are_handed_on() {
    let cluster = Cluster::default();
    let (digest, nobodys) = (Digest::of("made"), Digest::of("reserved"));
    let alone = Local::new();
    alone.images.note_made("owner", &digest, true).unwrap();
    let file = alone.dir.path().join("images/private").join(format!("{}.json", nobodys.hex()));
    std::fs::write(&file, r#"{"readers": []}"#).unwrap();
    let joined = alone.images.clone().with_marks(cluster.marks.clone());
    assert_eq!((joined.share_marks().unwrap(), joined.share_marks().unwrap()), (2, 0));
    let view = |tenant: &str| joined.for_tenant(tenant, BTreeMap::new());
    assert!(view("owner").may_read(&digest).unwrap());
    assert!(!view("stranger").may_read(&digest).unwrap());
    assert!(!view("owner").may_read(&nobodys).unwrap());
    assert!(!file.exists());
}

#[test]
fn a_fetch_that_fails_makes_nobody_a_reader() {
    let cluster = Cluster::default();
    for (local, later) in [(Local::new(), None), (cluster.node(), Some(cluster.node()))] {
        let spy = spy(None);
        let credential = Credential::Basic { username: "me".into(), password: "secret".into() };
        let logins = || BTreeMap::from([(spy.host.clone(), credential.clone())]);
        let stranger = local.images.for_tenant("stranger", logins());
        pull(&stranger, &format!("{}/app:1", spy.host)).unwrap_err();
        let (fake, _, layer) = with_door(&Arc::new(AtomicBool::new(true)));
        pull(&owner(&local, &fake), &format!("{}/app:1", fake.host)).unwrap();
        assert!(!stranger.may_read(&layer).unwrap());
        let node = later.unwrap_or(local);
        let later = node.images.for_tenant("stranger", logins());
        assert!(!later.may_read(&layer).unwrap());
        pull(&later, &format!("{}/app:1", spy.host)).unwrap_err();
    }
}

#[test]
fn a_config_that_claims_a_diff_id_makes_nobody_its_reader() {
    let victims = Digest::of("a layer of somebody else's");
    for local in [Local::new(), Cluster::default().node()] {
        local.images.note_made("owner", &victims, true).unwrap();
        let mut content = Content::default();
        let layer = content.blob("application/vnd.oci.image.layer.v1.tar", b"my own bytes");
        let config = serde_json::json!({ "os": "linux", "architecture": "amd64",
            "rootfs": { "type": "layers", "diff_ids": [victims] } });
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = content.blob(kind, config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": kind,
            "config": config, "layers": [layer] });
        content.manifest("1", kind, manifest.to_string().into_bytes());
        let fake = Fake::start(move |r| content.answer(r));
        let credential = Credential::Basic { username: "me".into(), password: "secret".into() };
        let logins = BTreeMap::from([(fake.host.clone(), credential)]);
        let stranger = local.images.for_tenant("stranger", logins);
        pull(&stranger, &format!("{}/app:1", fake.host)).unwrap();
        assert!(!stranger.may_read(&victims).unwrap());
        assert!(stranger.may_read(&layer.digest).unwrap());
    }
}
