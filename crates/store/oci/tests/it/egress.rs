//! Where a server's client goes, and where it does not.

use ashlar_blobs::BlobStore;
use ashlar_oci::registry::{BlobOrigins, Downloaded};
use ashlar_oci::{
    Egress, PullPolicy, Reference, Registry, RegistryError, RegistrySettings, Transfer,
};

use crate::support::{Content, Fake, Local, Reply, settings};

/// Most bytes of a fetched file.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn guarded(allowed: &[&str]) -> RegistrySettings {
    let allowed = allowed.iter().map(|text| text.parse().unwrap());
    RegistrySettings { egress: Egress::guarded(allowed), ..settings() }
}

fn fetch(settings: RegistrySettings, url: &str) -> Result<Downloaded, RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    let quiet = Transfer::quiet();
    Registry::new(settings).download(url, None, None, &store, FILE_BYTES_MAX, &quiet)
}

/// The server's name in place of its address.
fn by_name(fake: &Fake) -> String {
    fake.host.replace("127.0.0.1", "localhost")
}

#[test]
fn a_guarded_client_connects_to_no_service_of_its_own_machine() {
    let fake = Fake::start(|_| Reply::ok(b"secret".to_vec()));
    for host in [&fake.host, &by_name(&fake), &fake.host.replace("127.0.0.1", "[::ffff:7f00:1]")] {
        let url = format!("http://user:pass-word@{host}/file?token=abc#part");
        let error = fetch(guarded(&[]), &url).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("which builds do not reach"), "{text}");
        assert!(text.contains("/file") && !text.contains("pass-word") && !text.contains("abc"));
        assert!(error.hint().unwrap().contains("--egress-allow"), "{error:?}");
    }
    assert_eq!(fake.log().len(), 0);
    // What is named is reached, by the name that was said and no other.
    for (named, host) in [(&*fake.host, &fake.host), ("localhost", &by_name(&fake))] {
        assert!(fetch(guarded(&[named]), &format!("http://{host}/file")).is_ok(), "{named}");
    }
    let url = format!("http://{}/file", fake.host);
    assert!(fetch(guarded(&["localhost"]), &url).is_err());
    assert!(fetch(guarded(&["127.0.0.0/8"]), &format!("http://{}/file", by_name(&fake))).is_ok());
    assert!(fetch(settings(), &url).is_ok(), "one's own machine is one's own");
}

#[test]
fn a_registry_on_this_machine_is_read_where_files_are_not() {
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[b"layer"]);
    let fake = Fake::start(move |request| content.answer(request));
    let egress = Egress::guarded([]).with_loopback();
    let settings = RegistrySettings { egress, ..settings() };
    for host in [fake.host.clone(), by_name(&fake)] {
        let before = fake.log().len();
        assert!(fetch(settings.clone(), &format!("http://{host}/v2/")).is_err(), "{host}");
        assert_eq!(fake.log().len(), before);
        let name: Reference = format!("{host}/library/app:1").parse().unwrap();
        Registry::new(settings.clone()).manifest(&name, &Transfer::quiet()).unwrap();
        assert!(fake.log().len() > before);
    }
}

#[test]
fn a_redirect_leads_no_further_than_the_first_address() {
    let hidden = Fake::start(|_| Reply::ok(b"secret".to_vec()));
    for host in [hidden.host.clone(), by_name(&hidden)] {
        let target = format!("http://{host}/x?token=abc");
        let open = Fake::start(move |_| Reply::new(302).header("location", target.clone()));
        let url = format!("http://{}/file", open.host);
        let text = fetch(guarded(&[&open.host]), &url).unwrap_err().to_string();
        assert!(text.contains("which builds do not reach") && !text.contains("abc"), "{text}");
        assert_eq!(open.log().len(), 1);
    }
    assert_eq!(hidden.log().len(), 0);
}

#[test]
fn a_mirror_is_named_to_be_read_and_not_to_be_written_to() {
    let mut content = Content::default();
    content.image("1", "linux/amd64", &[b"layer"]);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "GET" | "HEAD" => content.answer(request),
        _ => Reply::new(202).header("location", "/v2/upload"),
    });
    let direct: Reference = format!("{}/library/app:1", fake.host).parse().unwrap();
    let pull = |settings: RegistrySettings, name: &Reference| {
        let local = Local::with(settings);
        let quiet = Transfer::quiet();
        let platform = "linux/amd64".parse().unwrap();
        let image = local.images.resolve(name, &platform, PullPolicy::Default, &quiet);
        let image = image.map_err(|e| format!("{:?}", e))?;
        local.images.fetch_layer(&image, 0, &quiet).map_err(|e| format!("{:?}", e))?;
        let registry = local.images.registry();
        let root = registry.manifest(name, &quiet).unwrap().descriptor;
        local.images.blobs().put_bytes(&registry.manifest(name, &quiet).unwrap().bytes).unwrap();
        let blobs = local.images.blobs();
        let pushed = registry.push(&direct, &root, blobs, &BlobOrigins::new(), &quiet);
        Ok::<_, String>(pushed.map_err(|e| e.to_string()))
    };
    let refused = pull(guarded(&[]), &direct).unwrap_err();
    assert!(refused.contains("Egress"), "{refused}");
    assert_eq!(fake.log().len(), 0);
    let mirror = format!("docker.io=http://{}", fake.host).parse().unwrap();
    let mirrored = RegistrySettings { mirrors: vec![mirror], ..guarded(&[]) };
    for name in [&direct, &"app:1".parse().unwrap()] {
        let pushed = pull(mirrored.clone(), name).unwrap().unwrap_err();
        assert!(pushed.contains("which builds do not reach"), "{pushed}");
    }
    let written =
        |fake: &Fake| fake.log().iter().filter(|r| !matches!(&*r.method, "GET" | "HEAD")).count();
    assert_eq!(written(&fake), 0);
    // Named for both, it is written to.
    let plain = RegistrySettings { plain_http: vec![fake.host.clone()], ..guarded(&[]) };
    for settings in [guarded(&[&fake.host]), plain] {
        let before = written(&fake);
        drop(pull(settings, &direct).unwrap());
        assert!(written(&fake) > before);
    }
}
