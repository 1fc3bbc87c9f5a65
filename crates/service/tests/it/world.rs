//! Services on a database of their own, and an executor that plays roles by the image's name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Answer, Answers, Lowered};
use ashlar_core::journal::{ArtifactRecord, Event};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest, Platform};
use ashlar_service::{
    Actor, Definition, Error, Executor, Finished, Page, Recipe, Record, Service, ServiceConfig,
    TokenText, Work,
};
use tempfile::TempDir;

/// Declares tests that run on both databases.
#[macro_export]
macro_rules! on_both {
    ($($name:ident;)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::world::World::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::world::World::postgres().await).await;
            })*
        }
    };
}

/// Data directories and a database.
pub(crate) struct World {
    dirs: Vec<TempDir>,
    database: Option<String>,
    pub(crate) stage: Arc<Stage>,
}

/// What the executor is told and has done.
#[derive(Default)]
pub(crate) struct Stage {
    /// Names of builds in the order in which they ran.
    ran: Mutex<Vec<String>>,
    /// Builds named so end; others wait.
    released: Mutex<Vec<String>>,
    /// Names of builds that were told to stop.
    stopped: Mutex<Vec<String>>,
}

impl Stage {
    pub(crate) fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap().clone()
    }

    pub(crate) fn stopped(&self) -> Vec<String> {
        self.stopped.lock().unwrap().clone()
    }

    pub(crate) fn release(&self, name: &str) {
        self.released.lock().unwrap().push(name.to_owned());
    }

    fn is_released(&self, name: &str) -> bool {
        self.released.lock().unwrap().iter().any(|n| n == name)
    }
}

struct Player(Arc<Stage>);

impl Executor for Player {
    fn name(&self) -> &'static str {
        "native"
    }

    /// Plays the role that the image's name says: `ok`, `asks`, `fail`, `fail-once`, `store-away`,
    /// `hold` or `deaf`, which holds whoever wishes it to stop.
    fn build(&self, work: Work<'_>, cancel: &ashlar_sandbox::Cancel) -> Result<Finished, Failure> {
        let (name, stage) = (work.request.name.clone(), &self.0);
        work.request.sink.event(Event::State { to: State::Running });
        stage.ran.lock().unwrap().push(name.clone());
        let role = match &work.definition.recipe {
            Recipe::Image { reference, .. } => reference.as_str(),
            _ => "ok",
        };
        if role == "asks" {
            ask(&work);
        }
        let times = stage.ran().iter().filter(|n| **n == name).count();
        while ["hold", "deaf"].contains(&role) && !stage.is_released(&name) {
            if role == "hold" && cancel.is_cancelled() {
                stage.stopped.lock().unwrap().push(name);
                return Err(Failure::new(FailureKind::Interrupted, "stopped"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if role == "fail" || (role == "fail-once" && times == 1) {
            return Err(Failure::new(FailureKind::Step, format!("{name} shall fail")));
        }
        if role == "store-away" && times == 1 {
            let failure = Failure::new(FailureKind::Export, "cannot write");
            return Err(Failure { store_away: true, ..failure });
        }
        let artifact = ArtifactRecord {
            name: "image".into(),
            kind: "image".into(),
            digest: Digest::of(&name),
            bytes: Some(100),
            references: Vec::new(),
        };
        Ok(Finished { artifacts: vec![artifact], files: BTreeMap::new() })
    }
}

/// Goes the way of an executor to the plan: all questions are about images.
fn ask(work: &Work<'_>) {
    let mut answers = Answers::new();
    while let Lowered::Questions(questions) = work.request.frontend.lower(&answers).unwrap() {
        for question in questions {
            let (reference, manifest) = ("docker.io/library/asks:latest", Digest::of("manifest"));
            let config = Box::default();
            answers.put(question, Answer::Image { reference: reference.into(), manifest, config });
        }
    }
    work.request.sink.event(Event::Steps { names: vec!["the only one".into()] });
}

pub(crate) fn role(role: &str) -> Definition {
    let (reference, platform) = (role.to_owned(), Platform::host());
    Definition::new(Recipe::Image { reference, platform })
}

impl World {
    pub(crate) fn sqlite() -> Self {
        Self { dirs: vec![tempfile::tempdir().unwrap()], database: None, stage: Arc::default() }
    }

    pub(crate) async fn postgres() -> Self {
        let database = Some(crate::postgres::fresh_database().await);
        Self { database, ..Self::sqlite() }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.database.is_some()
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.dirs[0].path()
    }

    /// Where the records are, for tests that play a lost server.
    pub(crate) fn database(&self) -> String {
        let file = self.dirs[0].path().join("records.db").display().to_string();
        self.database.clone().unwrap_or(file)
    }

    /// Opens the service; its workers do not run yet.
    pub(crate) async fn open(&self) -> Arc<Service> {
        self.open_with(|_| {}).await
    }

    pub(crate) async fn open_with(&self, change: impl FnOnce(&mut ServiceConfig)) -> Arc<Service> {
        self.open_in(self.dirs[0].path(), change).await
    }

    /// Opens another server of the same database.
    pub(crate) async fn open_beside(&mut self) -> Arc<Service> {
        self.open_beside_with(|_| {}).await
    }

    pub(crate) async fn open_beside_with(
        &mut self,
        change: impl FnOnce(&mut ServiceConfig),
    ) -> Arc<Service> {
        self.dirs.push(tempfile::tempdir().unwrap());
        self.open_in(self.dirs[self.dirs.len() - 1].path(), change).await
    }

    async fn open_in(
        &self,
        dir: &std::path::Path,
        change: impl FnOnce(&mut ServiceConfig),
    ) -> Arc<Service> {
        self.try_open_in(dir, change).await.unwrap()
    }

    /// Opens another server of the same database that may not be one.
    pub(crate) async fn try_open_beside(
        &mut self,
        change: impl FnOnce(&mut ServiceConfig),
    ) -> Result<Arc<Service>, Error> {
        self.dirs.push(tempfile::tempdir().unwrap());
        self.try_open_in(self.dirs[self.dirs.len() - 1].path(), change).await
    }

    async fn try_open_in(
        &self,
        dir: &std::path::Path,
        change: impl FnOnce(&mut ServiceConfig),
    ) -> Result<Arc<Service>, Error> {
        let mut config = ServiceConfig::new(dir);
        config.admin_token = Some(TokenText::new("admin-token-of-the-tests".into()));
        config.secrets_key = Some("ab".repeat(32));
        config.database.clone_from(&self.database);
        config.executor = Some(Arc::new(Player(Arc::clone(&self.stage))));
        config.drain = Duration::ZERO;
        change(&mut config);
        Service::open(config).await
    }

    /// Waits until a build is as it should be.
    pub(crate) async fn until(
        &self,
        service: &Arc<Service>,
        build: BuildId,
        fits: impl Fn(&Record) -> bool,
    ) -> Record {
        let mut follower = service.follow(service.admin(), build, 0).await.unwrap();
        let look = async {
            loop {
                let row = service.row(service.admin(), build).await.unwrap();
                if fits(&row) {
                    return row;
                }
                assert!(!row.state.is_terminal(), "{row:#?}");
                follower.next(1000).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), look).await.unwrap()
    }

    pub(crate) async fn ended(&self, service: &Arc<Service>, build: BuildId) -> Record {
        self.until(service, build, |row| row.state.is_terminal()).await
    }
}

/// Returns a run's builds by name, oldest first.
pub(crate) async fn children(service: &Service, actor: &Actor, run: BuildId) -> Vec<Record> {
    let listed = service.children(actor, run, &Page::newest(100)).await.unwrap();
    listed.records.iter().rev().map(|r| Record::clone(r)).collect()
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, is: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
