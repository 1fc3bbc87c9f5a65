//! Canned answers: lowers a request to its end with made-up images and files.

use std::collections::BTreeMap;

use ashlar_core::Digest;
use ashlar_core::frontend::{Answer, Answers, Diagnostic, Frontend, Lowered, Plan, Question};
use ashlar_core::image::{History, ImageConfig};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request};
use serde_json::{Value, json};

/// What exists outside of the Dockerfile.
pub(crate) struct World {
    /// Run configs by familiar name.
    pub(crate) images: BTreeMap<String, Value>,
    /// Files by context and path.
    pub(crate) files: BTreeMap<(String, String), Vec<u8>>,
}

impl Default for World {
    fn default() -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let plain = json!({"Env": [path], "Cmd": ["sh"]});
        let mut onbuild = plain.clone();
        onbuild["OnBuild"] = json!([
            "ENV FROM_ONBUILD=yes",
            "RUN echo built >/onbuild-ran",
            "COPY payload /payload",
            "WORKDIR /onwork"
        ]);
        let mut multi = plain.clone();
        multi["Labels"] = json!({"arch": "amd64"});
        let rich = json!({
            "Env": ["PATH=/usr/local/bin:/bin:/usr/bin", "BASE=one", "SPACED=a b  c", "EMPTY=",
                    "QUOTE=say \"hi\""],
            "User": "33:100", "WorkingDir": "/var/www",
            "Entrypoint": ["/bin/sh", "-c", "exec \"$0\" \"$@\""], "Cmd": ["echo", "base"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}, "/var/lib/vol": {}},
            "Labels": {"org.base": "1", "keep": "yes"}, "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 30_000_000_000_i64,
                            "Retries": 2},
            "Shell": ["/bin/sh", "-e", "-c"],
        });
        let names = [
            ("busybox", &plain),
            ("library/busybox", &plain),
            ("alpine", &plain),
            ("debian", &plain),
            ("cases/layers", &plain),
            ("cases/onbuild", &onbuild),
            ("cases/rich", &rich),
            ("cases/multi", &multi),
        ];
        let images = names.map(|(n, c)| (n.to_owned(), c.clone())).into_iter().collect();
        Self { images, files: BTreeMap::new() }
    }
}

impl World {
    pub(crate) fn with_file(mut self, path: &str, content: &str) -> Self {
        let place = ("context".to_owned(), path.to_owned());
        self.files.insert(place, content.as_bytes().to_vec());
        self
    }

    pub(crate) fn with_image(mut self, name: &str, config: Value) -> Self {
        self.images.insert(name.to_owned(), config);
        self
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Image { reference, platform } => {
                let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
                let (name, tag) = short.split_once(':').unwrap_or((short, "latest"));
                let Some(config) = self.images.get(name) else {
                    return Answer::Failed { message: "not found".into() };
                };
                let mut config = config.clone();
                if let Some(arch) = config.pointer_mut("/Labels/arch") {
                    *arch = json!(platform.architecture);
                }
                let mut image = ImageConfig::scratch(platform);
                image.config = serde_json::from_value(config).unwrap();
                let layer = History { created_by: Some("base".into()), ..History::default() };
                image.history = vec![layer];
                image.rootfs.diff_ids = vec![Digest::of(name)];
                let full = if name.contains('/') { name.into() } else { format!("library/{name}") };
                Answer::Image {
                    reference: format!("docker.io/{full}:{tag}"),
                    manifest: Digest::of(format!("{full}{platform}")),
                    config: Box::new(image),
                }
            }
            Question::File { context, path } => {
                Answer::File { content: self.files.get(&(context.clone(), path.clone())).cloned() }
            }
            _ => Answer::Failed { message: "nothing is known of that".into() },
        }
    }
}

/// Lowers a request to its end; also returns how many rounds of questions it took.
pub(crate) fn lower(request: Request, world: &World) -> Result<(Plan, usize), Box<Diagnostic>> {
    let frontend = DockerfileFrontend::new(request);
    let mut answers = Answers::new();
    for round in 0..100 {
        match frontend.lower(&answers)? {
            Lowered::Plan(plan) => return Ok((*plan, round)),
            Lowered::Questions(questions) => {
                assert!(!questions.is_empty());
                for question in questions {
                    assert!(answers.get(&question).is_none(), "asked again: {question:?}");
                    let answer = world.answer(&question);
                    answers.put(question, answer);
                }
            }
        }
    }
    panic!("the frontend never stops asking");
}

/// Lowers a text that must be right.
pub(crate) fn plan(text: &str) -> Plan {
    match lower(Request::text(text), &World::default()) {
        Ok((plan, _)) => plan,
        Err(error) => panic!("{error}"),
    }
}

/// Lowers a text that must be wrong.
pub(crate) fn fail(text: &str) -> Diagnostic {
    match lower(Request::text(text), &World::default()) {
        Ok(_) => panic!("this should be refused:\n{text}"),
        Err(error) => *error,
    }
}

/// Returns the history that the Dockerfile added: `+` with a layer, `-` without.
pub(crate) fn history(plan: &Plan) -> Vec<String> {
    let own = plan.config.history.iter().filter(|h| h.comment.is_some());
    own.map(|h| {
        let sign = if h.empty_layer { '-' } else { '+' };
        format!("{sign} {}", h.created_by.as_deref().unwrap_or_default())
    })
    .collect()
}
