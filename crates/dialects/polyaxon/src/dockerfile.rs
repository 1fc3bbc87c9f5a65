//! From a specification and its code to a Dockerfile and its build context, by the original's
//! template.
//!
//! The context is a folder with `Dockerfile` and `build/`, which holds the code. So code is
//! `build/...` in `COPY`, also in a Dockerfile of the user's own (upstream issue 463).

use ashlar_core::Digest;
use ashlar_service::{ContextFile, ContextManifest, EntryKind};

use crate::spec::{Base, Specification};

/// Where the code lies in the context.
const CODE: &str = "build";
/// The locale that the original always set before 0.5, as the documents' example shows.
const LOCALE: &str = "en_US.UTF-8";
const REQUIREMENTS: [&str; 2] = ["polyaxon_requirements.txt", "requirements.txt"];
const CONDA: [&str; 4] =
    ["polyaxon_conda_env.yaml", "polyaxon_conda_env.yml", "conda_env.yaml", "conda_env.yml"];
const SETUP: [&str; 2] = ["polyaxon_setup.sh", "setup.sh"];

/// Returns the Dockerfile of a specification that builds on an image, for code of which `has` says
/// whether a file is in its root.
pub(crate) fn text(spec: &Specification, image: &str, has: impl Fn(&str) -> bool) -> String {
    let mut out = format!("\nFROM {image}\n\n");
    let locale = match &spec.locale {
        Some(locale) => Some(locale.as_str()),
        None => spec.nested.then_some(LOCALE),
    };
    if let Some(locale) = locale {
        for name in ["LC_ALL", "LANG", "LANGUAGE"] {
            out.push_str(&format!("ENV {name} {locale}\n"));
        }
    }
    out.push_str("# Use bash as default shell, rather than sh\nENV SHELL /bin/bash\n\n");
    for (name, value) in &spec.variables {
        out.push_str(&format!("ENV {name} {value}\n"));
    }
    out.push_str("WORKDIR /code\n\n");
    // The conda file is younger than nested specifications.
    let conda: &[&str] = if spec.nested { &[] } else { &CONDA };
    for names in [&REQUIREMENTS[..], conda, &SETUP[..]] {
        if let Some(name) = names.iter().find(|name| has(name)) {
            out.push_str(&format!("COPY {CODE}/{name} /code\n"));
        }
    }
    for step in &spec.steps {
        out.push_str(&format!("RUN {step}\n"));
    }
    out.push_str(&format!("COPY {CODE} /code\n"));
    out
}

/// The code that a build takes: all of a commit, or one folder of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Code {
    files: Vec<ContextFile>,
}

impl Code {
    /// Takes a commit's tree, or a folder of it. A folder that is not there is empty.
    pub(crate) fn new(tree: ContextManifest, folder: Option<&str>) -> Self {
        let folder = folder.map(clean).filter(|f| !f.is_empty());
        let Some(folder) = folder else { return Self { files: tree.files } };
        let prefix = format!("{folder}/");
        let below = |file: ContextFile| {
            let path = file.path.strip_prefix(&prefix)?.to_owned();
            Some(ContextFile { path, ..file })
        };
        Self { files: tree.files.into_iter().filter_map(below).collect() }
    }

    /// Says whether there is a file of a name in the root.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is_file = |f: &ContextFile| matches!(f.kind, EntryKind::File { .. });
        self.files.iter().any(|f| f.path == name && is_file(f))
    }

    /// Returns the whole build context, with the Dockerfile in it when it is the user's own.
    pub(crate) fn into_context(self, dockerfile: Option<Digest>) -> ContextManifest {
        let is_setup = |path: &str| SETUP.contains(&path);
        let setup = SETUP.iter().find(|name| self.has(name)).copied();
        let mut files = vec![ContextFile { path: CODE.into(), kind: EntryKind::Dir, mode: None }];
        files.extend(dockerfile.map(|digest| ContextFile::file("Dockerfile", digest)));
        for mut file in self.files {
            if is_setup(&file.path) && Some(file.path.as_str()) == setup {
                file.mode = Some(file.mode.unwrap_or(0o644) | 0o111);
            }
            file.path = format!("{CODE}/{}", file.path);
            files.push(file);
        }
        ContextManifest { files }
    }
}

/// Returns the digest and size of a file of a tree.
pub(crate) fn find(tree: &ContextManifest, path: &str) -> Option<Digest> {
    let path = clean(path);
    tree.files.iter().find(|f| f.path == path).and_then(|f| match f.kind {
        EntryKind::File { digest, .. } => Some(digest),
        _ => None,
    })
}

/// Returns a path without `.` and doubled slashes. One that leads upwards names nothing.
fn clean(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

impl Specification {
    /// Returns the path of the user's own Dockerfile, if the build takes one.
    pub(crate) fn own_dockerfile(&self) -> Option<&str> {
        match &self.base {
            Base::Dockerfile(path) => Some(path),
            Base::Image(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::read_text;

    fn spec(text: &str) -> Specification {
        Specification::parse(&read_text(text).unwrap()).unwrap()
    }

    fn made(yaml: &str, files: &[&str]) -> String {
        let spec = spec(yaml);
        let Base::Image(image) = spec.base.clone() else { panic!("{yaml}") };
        text(&spec, &image, |name| files.contains(&name))
    }

    const SHELL: &str = "# Use bash as default shell, rather than sh\nENV SHELL /bin/bash\n\n";

    #[test]
    fn the_documents_example_comes_out_letter_by_letter() {
        let seed = "version: 1\nkind: build\nbuild:\n  image: tensorflow/tensorflow:1.4.1-py3\n  build_steps:\n    - pip3 install --no-cache-dir -U polyaxon-helper\n";
        assert_eq!(
            made(seed, &[]),
            "\nFROM tensorflow/tensorflow:1.4.1-py3\n\nENV LC_ALL en_US.UTF-8\nENV LANG en_US.UTF-8\nENV LANGUAGE en_US.UTF-8\n# Use bash as default shell, rather than sh\nENV SHELL /bin/bash\n\nWORKDIR /code\n\nRUN pip3 install --no-cache-dir -U polyaxon-helper\nCOPY build /code\n"
        );
    }

    #[test]
    fn every_part_of_the_template() {
        let flat = "version: 1\nkind: build\nimage: a\n";
        let nested = "version: 1\nkind: build\nbuild:\n  image: a\n";
        let locale = "ENV LC_ALL en_US.UTF-8\nENV LANG en_US.UTF-8\nENV LANGUAGE en_US.UTF-8\n";
        let table = [
            (
                flat.to_owned(),
                &[][..],
                format!("\nFROM a\n\n{SHELL}WORKDIR /code\n\nCOPY build /code\n"),
            ),
            (
                format!("{flat}lang_env: C.UTF-8"),
                &[],
                format!(
                    "\nFROM a\n\nENV LC_ALL C.UTF-8\nENV LANG C.UTF-8\nENV LANGUAGE C.UTF-8\n{SHELL}WORKDIR /code\n\nCOPY build /code\n"
                ),
            ),
            (
                format!(
                    "{flat}env_vars: [[FOO, bar], [N, 1.5], [B, false]]\nbuild_steps: [one, two]"
                ),
                &[],
                format!(
                    "\nFROM a\n\n{SHELL}ENV FOO bar\nENV N 1.5\nENV B False\nWORKDIR /code\n\nRUN one\nRUN two\nCOPY build /code\n"
                ),
            ),
            (
                flat.to_owned(),
                &["requirements.txt", "setup.sh", "conda_env.yml", "conda_env.yaml"],
                format!(
                    "\nFROM a\n\n{SHELL}WORKDIR /code\n\nCOPY build/requirements.txt /code\nCOPY build/conda_env.yaml /code\nCOPY build/setup.sh /code\nCOPY build /code\n"
                ),
            ),
            (
                format!("{nested}  build_steps: [x]"),
                &[
                    "polyaxon_requirements.txt",
                    "requirements.txt",
                    "polyaxon_setup.sh",
                    "conda_env.yml",
                ],
                format!(
                    "\nFROM a\n\n{locale}{SHELL}WORKDIR /code\n\nCOPY build/polyaxon_requirements.txt /code\nCOPY build/polyaxon_setup.sh /code\nRUN x\nCOPY build /code\n"
                ),
            ),
        ];
        for (yaml, files, want) in table {
            assert_eq!(made(&yaml, files), want, "{yaml}");
        }
    }

    fn tree() -> ContextManifest {
        let script =
            ContextFile { mode: Some(0o600), ..ContextFile::file("setup.sh", Digest::of("s")) };
        let files = vec![
            script,
            ContextFile::file("app.py", Digest::of("a")),
            ContextFile::file("sub/requirements.txt", Digest::of("r")),
            ContextFile::file("subway/x", Digest::of("x")),
            ContextFile { path: "sub".into(), kind: EntryKind::Dir, mode: None },
        ];
        ContextManifest { files }
    }

    #[test]
    fn code_lies_below_build_and_setup_is_executable() {
        let context = Code::new(tree(), None).into_context(Some(Digest::of("d")));
        let paths: Vec<&str> = context.files.iter().map(|f| f.path.as_str()).collect();
        let want = [
            "build",
            "Dockerfile",
            "build/setup.sh",
            "build/app.py",
            "build/sub/requirements.txt",
            "build/subway/x",
            "build/sub",
        ];
        assert_eq!(paths, want);
        assert_eq!(context.files[2].mode, Some(0o711));
        assert!(context.check().is_ok());
    }

    #[test]
    fn a_folder_stands_for_the_code() {
        for folder in ["sub", "./sub/", "/sub"] {
            let code = Code::new(tree(), Some(folder));
            assert!(
                code.has("requirements.txt") && !code.has("app.py") && !code.has("x"),
                "{folder}"
            );
        }
        for nowhere in ["nope", "../..", "sub/../.."] {
            let context = Code::new(tree(), Some(nowhere)).into_context(None);
            assert_eq!(context.files.len(), 1, "{nowhere}");
        }
        assert!(Code::new(tree(), Some(".")).has("app.py"));
        assert!(find(&tree(), "./app.py").is_some() && find(&tree(), "../app.py").is_none());
        assert!(find(&tree(), "sub").is_none());
    }
}
