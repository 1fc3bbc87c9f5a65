//! From a definition to a frontend: guarded, frozen, with its start command.

use std::sync::{Mutex, PoisonError};

use ashlar_core::frontend::{Answer, Answers, Diagnostic, Frontend, Lowered, Plan, Question};
use ashlar_core::graph::Op;
use ashlar_core::image::RunConfig;
use ashlar_core::{BuildId, TenantId};
use ashlar_frontend_declarative::{Base, Declarative, Definition as Steps, Runtime};
use ashlar_frontend_dockerfile::DockerfileFrontend;
use ashlar_oci::Reference;

use crate::own_tags::Renaming;
use crate::start::add_start;
use crate::{Definition, Error, Recipe, StartCommand};

/// The registry host that stands for what was built here; never asked over the network.
pub(crate) const INTERNAL_HOST: &str = "build.ashlar.internal";
/// Whose notes the service's own are.
pub(crate) const NOTE_DIALECT: &str = "service";
/// The key in such a note that named the blob with a build's answers, before there was an event of
/// its own for that.
pub(crate) const ANSWERS_KEY: &str = "answers";

/// Returns the name of a build's image in the local image store.
pub(crate) fn image_name(tenant: impl ToString, build: impl ToString) -> Result<Reference, Error> {
    let text = format!("{INTERNAL_HOST}/{}/{}:latest", tenant.to_string(), build.to_string());
    text.parse().map_err(Error::internal)
}

/// The frontend that the service hands to executors.
pub(crate) struct Guarded {
    inner: Box<dyn Frontend>,
    tenant: TenantId,
    /// The image of another tenant that the definition may use.
    granted: Option<Reference>,
    runtime: Runtime,
    start: Option<StartCommand>,
    frozen: Answers,
    seen: Mutex<Option<Answers>>,
    images: Option<Box<dyn Adopt>>,
    own: Option<Renaming>,
}

/// Makes images of builds known here that other machines have built.
pub(crate) trait Adopt: Send + Sync {
    /// Makes the image of a tenant's build known here, unless it is.
    ///
    /// # Errors
    /// With a text for the client, when there is no such image.
    fn adopt(&self, owner: TenantId, build: BuildId) -> Result<(), String>;
}

impl Guarded {
    /// Makes the frontend of a tenant's definition, with answers that are known already.
    pub(crate) fn new(
        definition: &Definition,
        tenant: TenantId,
        frozen: Answers,
    ) -> Result<Self, Error> {
        let inner: Box<dyn Frontend> = match &definition.recipe {
            Recipe::Dockerfile(request) => Box::new(DockerfileFrontend::new(request.clone())),
            Recipe::Declarative(steps) => Box::new(Declarative(steps.clone())),
            Recipe::OnBuild { base, owner, steps } => {
                Box::new(on_build(owner.unwrap_or(tenant), *base, steps)?)
            }
            Recipe::Image { reference, platform } => {
                let mut steps = Steps::new(Base::Image(reference.clone()), Vec::new());
                steps.platform = platform.clone();
                Box::new(Declarative(steps))
            }
            Recipe::Graph { plan } => Box::new(Ready((**plan).clone())),
            Recipe::Workflow(_) | Recipe::Other { .. } => {
                return Err(Error::Conflict("this build is nothing that a worker can run".into()));
            }
        };
        let (runtime, start) = (definition.runtime.clone(), definition.start.clone());
        let granted = match &definition.recipe {
            Recipe::OnBuild { base, owner: Some(owner), .. } => Some(image_name(owner, base)?),
            _ => None,
        };
        let seen = Mutex::new(None);
        Ok(Self { inner, tenant, granted, runtime, start, frozen, seen, images: None, own: None })
    }

    /// Lets images of other machines be found.
    pub(crate) fn with_images(self, images: Option<Box<dyn Adopt>>) -> Self {
        Self { images, ..self }
    }

    /// Lets the tenant's own tags be names of base images.
    pub(crate) fn with_own(self, own: Option<Renaming>) -> Self {
        Self { own, ..self }
    }

    /// Returns all answers that led to the plan, once there is one.
    pub(crate) fn answers(&self) -> Option<Answers> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses images that other tenants built: all share one local image store. Those that are
    /// not refused are made known here.
    fn check(&self, reference: &str) -> Result<(), Box<Diagnostic>> {
        let Ok(reference) = reference.parse::<Reference>() else { return Ok(()) };
        let repository = reference.repository();
        let own = format!("{}/", self.tenant);
        let granted = self.granted.as_ref().map(Reference::repository);
        if repository.host() == INTERNAL_HOST
            && !repository.path().starts_with(&own)
            && granted != Some(repository)
        {
            return Err(Box::new(Diagnostic::new(format!("there is no image '{reference}'"))));
        }
        let (Some(images), true) = (&self.images, repository.host() == INTERNAL_HOST) else {
            return Ok(());
        };
        let parts = repository.path().split_once('/');
        let named =
            parts.and_then(|(owner, build)| Some((owner.parse().ok()?, build.parse().ok()?)));
        match named {
            Some((owner, build)) => {
                images.adopt(owner, build).map_err(|text| Box::new(Diagnostic::new(text)))
            }
            None => Ok(()),
        }
    }

    /// Lowers what is inside; names of the tenant's own images are asked for as what they lead to.
    fn ask(&self, known: &mut Answers) -> Result<Lowered, Box<Diagnostic>> {
        let Some(own) = &self.own else { return self.inner.lower(known) };
        loop {
            own.answer(known);
            let questions = match self.inner.lower(known)? {
                Lowered::Questions(questions) => questions,
                plan => return Ok(plan),
            };
            let mut asked = Vec::with_capacity(questions.len());
            for question in questions {
                let other =
                    own.rename(&question).map_err(|text| Box::new(Diagnostic::new(text)))?;
                let question = other.unwrap_or(question);
                // Two names of one image are one question, which may have been asked before.
                if known.get(&question).is_none() && !asked.contains(&question) {
                    asked.push(question);
                }
            }
            if !asked.is_empty() {
                return Ok(Lowered::Questions(asked));
            }
        }
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Box<Diagnostic>> {
        plan.graph.nodes().iter().try_for_each(|node| match &node.op {
            Op::Image { reference, .. } => self.check(reference),
            _ => Ok(()),
        })
    }
}

/// Changes how an image runs.
pub(crate) fn set_runtime(config: &mut RunConfig, runtime: &Runtime) {
    if let Some(user) = &runtime.user {
        config.user.clone_from(user);
    }
    if let Some(workdir) = &runtime.workdir {
        config.working_dir.clone_from(workdir);
    }
    for (name, value) in &runtime.envs {
        config.set_env(name, value);
    }
}

fn on_build(tenant: TenantId, base: BuildId, steps: &Steps) -> Result<Declarative, Error> {
    let base = Base::Image(image_name(tenant, base)?.to_string());
    Ok(Declarative(Steps { base, ..steps.clone() }))
}

impl Frontend for Guarded {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn lower(&self, answers: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        let mut known = self.frozen.clone();
        for (question, answer) in answers.iter() {
            known.put(question.clone(), answer.clone());
        }
        match self.ask(&mut known)? {
            Lowered::Questions(questions) => {
                for question in &questions {
                    if let Question::Image { reference, .. } = question {
                        self.check(reference)?;
                    }
                }
                Ok(Lowered::Questions(questions))
            }
            Lowered::Plan(mut plan) => {
                self.check_plan(&plan)?;
                set_runtime(&mut plan.config.config, &self.runtime);
                if let Some(start) = &self.start {
                    add_start(&mut plan, start)?;
                }
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
                Ok(Lowered::Plan(plan))
            }
        }
    }
}

/// A plan that is there already.
struct Ready(Plan);

impl Frontend for Ready {
    fn name(&self) -> &'static str {
        "graph"
    }

    fn lower(&self, _: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        Ok(Lowered::Plan(Box::new(self.0.clone())))
    }
}

/// Writes down what a later build takes instead of asking again. Questions that had no answer are
/// left out: they are asked again.
pub(crate) fn encode_answers(answers: &Answers) -> Result<Vec<u8>, Error> {
    let kept: Vec<(&Question, &Answer)> =
        answers.iter().filter(|(_, a)| !matches!(a, Answer::Failed { .. })).collect();
    serde_json::to_vec(&kept).map_err(Error::internal)
}

/// Reads what [`encode_answers`] wrote.
pub(crate) fn decode_answers(bytes: &[u8]) -> Result<Answers, Error> {
    let kept: Vec<(Question, Answer)> = serde_json::from_slice(bytes).map_err(Error::internal)?;
    let mut answers = Answers::new();
    kept.into_iter().for_each(|(question, answer)| answers.put(question, answer));
    Ok(answers)
}
