//! A worker that cannot reach the database stops before somebody else has its build.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ashlar_core::journal::{Record, Sink as _};
use ashlar_core::state::State;
use ashlar_records::{JournalWriter, LEASE, Store, now};

use crate::common::{after_lease, claim, log, submission, worker};
use crate::cut::{Cut, Way};
use crate::postgres;

/// Long enough that a slow machine does not lose a build in the time between.
const SHORT_LEASE: Duration = Duration::from_secs(3);

/// A build that is held by way of a cut, and the database without one.
struct Scene {
    cut: Cut,
    direct: Store,
    record: Record,
    writer: JournalWriter,
}

async fn scene() -> Scene {
    let url = postgres::fresh_database().await;
    let cut = Cut::before(&url).await;
    let direct = Store::open(&url).await.unwrap();
    let far = Store::open(&cut.url).await.unwrap().with_lease(SHORT_LEASE);
    far.submit(&ashlar_records::Submit::new(submission()), now()).await.unwrap();
    let record = far.claim(&claim(1), now()).await.unwrap().unwrap();
    let writer = JournalWriter::spawn(far, record.submission.build, record.fence);
    writer.event(log("before"));
    writer.flush().await.unwrap();
    Scene { cut, direct, record, writer }
}

/// Waits for a worker to notice that it is cut off; then another one takes its build.
async fn is_fenced(scene: Scene) {
    let Scene { direct, record, writer, .. } = scene;
    let build = record.submission.build;
    let noticed = tokio::time::timeout(Duration::from_secs(120), writer.cancelled()).await;
    noticed.expect("a worker that is cut off works for ever");
    // What it says then counts no more, even when the database is there again.
    let said = writer.flush().await.unwrap_err().to_string();
    assert!(said.contains("has not answered"), "{said}");
    assert_eq!(direct.expire(after_lease(now(), LEASE)).await.unwrap(), [build]);
    let again = ashlar_records::Claim { worker: worker(2), ..claim(2) };
    let taken = direct.claim(&again, now()).await.unwrap().unwrap();
    assert_eq!((taken.submission.build, taken.state), (build, State::Preparing));
    assert!(taken.fence > record.fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hears_nothing_gives_its_build_up() {
    let scene = scene().await;
    scene.cut.set(Way::Silent);
    is_fenced(scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_refused_gives_its_build_up() {
    let scene = scene().await;
    scene.cut.set(Way::Closed);
    is_fenced(scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_words_are_lost_gives_its_build_up() {
    let scene = scene().await;
    scene.cut.set(Way::Silent);
    // A batch is under way when the lease ends.
    scene.writer.event(log("lost"));
    is_fenced(scene).await;
}

/// A lease from before a wait for the database would have ended when it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_begin_when_the_database_has_answered() {
    let Scene { cut, direct, record, writer } = scene().await;
    drop(writer);
    let build = record.submission.build;
    let far = Store::open(&cut.url).await.unwrap();
    let read = AtomicUsize::new(0);
    let clock = || {
        read.fetch_add(1, Ordering::Relaxed);
        now()
    };
    cut.set(Way::Closed);
    far.claim_up_to(&claim(1), 1, clock).await.unwrap_err();
    far.heartbeat(build, record.fence, clock).await.unwrap_err();
    assert_eq!(read.load(Ordering::Relaxed), 0, "the clock was read before the wait");
    cut.set(Way::Open);
    direct.submit(&ashlar_records::Submit::new(submission()), now()).await.unwrap();
    assert_eq!(far.claim_up_to(&claim(1), 1, clock).await.unwrap().len(), 1);
    far.heartbeat(build, record.fence, clock).await.unwrap();
    assert_eq!(read.load(Ordering::Relaxed), 2);
}
