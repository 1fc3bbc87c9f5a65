//! Warnings with BuildKit's rule names, and the `check` directive that silences them.
//!
//! Source: <https://docs.docker.com/reference/build-checks/>.

use std::collections::BTreeSet;

use ashlar_core::frontend::{Diagnostic, Location};

use crate::lexer::{Directives, Line, assignment};
use crate::parse::bool_word;
use crate::source::{Problem, SourceText};

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Stage names should be lowercase.
    StageNameCasing,
    /// `as` should match the case of `from`.
    FromAsCasing,
    /// Empty lines inside a continuation.
    NoEmptyContinuation,
    /// Instructions of mixed case.
    ConsistentInstructionCasing,
    /// Two stages of one name.
    DuplicateStageName,
    /// A stage named like something that exists.
    ReservedStageName,
    /// `CMD` or `ENTRYPOINT` in shell form.
    JSONArgsRecommended,
    /// `MAINTAINER`.
    MaintainerDeprecated,
    /// `FROM` uses a variable that is not declared.
    UndefinedArgInFrom,
    /// `WORKDIR` is relative with none before it.
    WorkdirRelativePath,
    /// A variable is used that is not set.
    UndefinedVar,
    /// `CMD`, `ENTRYPOINT` or `HEALTHCHECK` more than once.
    MultipleInstructionsDisallowed,
    /// `ENV name value`.
    LegacyKeyValueFormat,
    /// The base is for another platform.
    InvalidBaseImagePlatform,
    /// `--platform=$TARGETPLATFORM`.
    RedundantTargetPlatform,
    /// A variable that looks like a secret.
    SecretsUsedInArgOrEnv,
    /// The default of an `ARG` makes no image name.
    InvalidDefaultArgInFrom,
    /// A constant `--platform`.
    FromPlatformFlagConstDisallowed,
    /// A source that `.dockerignore` excludes.
    CopyIgnoredFile,
    /// A comment that looks like a description but is none; only on request.
    InvalidDefinitionDescription,
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing,
    /// `EXPOSE 8080:80`.
    ExposeInvalidFormat,
    /// Ours: `# syntax=` names a frontend that is newer or another one.
    SyntaxDirective,
}

impl Rule {
    /// Returns its name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Returns the page that explains it.
    fn page(self) -> Option<String> {
        if matches!(self, Self::InvalidBaseImagePlatform | Self::SyntaxDirective) {
            return None;
        }
        let mut page = String::new();
        let name = self.name().replace("JSON", "Json");
        for c in name.chars() {
            if c.is_ascii_uppercase() && !page.is_empty() {
                page.push('-');
            }
            page.push(c.to_ascii_lowercase());
        }
        Some(format!("see https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }

    const fn experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}

/// What `check` says.
#[derive(Debug, Clone, Default)]
struct Config {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    error: bool,
}

/// Collects warnings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lint {
    config: Config,
    found: std::rc::Rc<std::cell::RefCell<Vec<(Rule, Diagnostic)>>>,
    override_: Option<String>,
}

impl Lint {
    /// Makes a collector; `check` of the build arguments wins over the directive.
    pub(crate) fn new(check: Option<String>) -> Self {
        Self { override_: check, ..Self::default() }
    }

    /// Reads the directive.
    pub(crate) fn configure(
        &mut self,
        directives: &Directives,
        source: &SourceText,
    ) -> Result<(), Box<Diagnostic>> {
        if let Some(text) = &self.override_ {
            self.config = config(text).map_err(|p| Box::new(Diagnostic::new(p.message)))?;
        } else if let Some((text, line)) = &directives.check {
            let fail = |p| source.diagnose_lines(*line, *line, p);
            self.config = config(text.split(' ').next().unwrap_or_default()).map_err(fail)?;
        }
        Ok(())
    }

    /// Returns a collector of the same warnings that heeds `# check=` above an instruction.
    pub(crate) fn scoped(&self, comments: &[String]) -> Self {
        let mut lint = self.clone();
        let check = comments.iter().find_map(|c| {
            assignment(c).filter(|(name, _)| name == "check").map(|(_, value)| value)
        });
        if let Some(other) = check.and_then(|c| config(c.split(' ').next()?).ok()) {
            lint.config.skip_all |= other.skip_all;
            lint.config.skip.extend(other.skip);
            lint.config.experimental_all |= other.experimental_all;
            lint.config.experimental.extend(other.experimental);
        }
        lint
    }

    /// Warns of a whole instruction.
    pub(crate) fn warn(
        &self,
        rule: Rule,
        line: &Line,
        source: &SourceText,
        text: impl Into<String>,
    ) {
        self.warn_at(rule, source.whole(line), source, text);
    }

    /// Warns of a place.
    pub(crate) fn warn_at(
        &self,
        rule: Rule,
        place: Location,
        source: &SourceText,
        text: impl Into<String>,
    ) {
        let (name, config) = (rule.name(), &self.config);
        let wanted = if rule.experimental() {
            config.experimental_all || config.experimental.contains(&name)
        } else {
            !config.skip_all && !config.skip.contains(&name)
        };
        if !wanted {
            return;
        }
        let problem = Problem::new(format!("{name}: {}", text.into())).maybe_hint(rule.page());
        let diagnostic = *source.diagnose_lines(place.line, place.end_line, problem);
        let mut found = self.found.borrow_mut();
        if !found.iter().any(|(_, d)| *d == diagnostic) {
            found.push((rule, diagnostic));
        }
    }

    /// Returns the warnings, in file order.
    ///
    /// # Errors
    /// When the directive says that warnings are errors: the first of them.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let mut found = self.found.take();
        found.sort_by_key(|(_, d)| d.location.as_ref().map(|l| l.line));
        if self.config.error
            && let Some((_, first)) = found.first()
        {
            let rules: BTreeSet<String> = found.iter().map(|(r, _)| r.name()).collect();
            let rules: Vec<String> = rules.into_iter().collect();
            let mut error = first.clone();
            error.message = format!("{} (and check=error=true is set)", first.message);
            error.hint = Some(format!("lint violation found for rules: {}", rules.join(", ")));
            return Err(Box::new(error));
        }
        Ok(found.into_iter().map(|(_, d)| d).collect())
    }
}

fn config(text: &str) -> Result<Config, Problem> {
    let mut config = Config::default();
    let names = |v: &str| v.split(',').map(|r| r.trim().to_owned()).collect();
    for part in text.trim().splitn(3, ';').filter(|p| !p.is_empty()) {
        let invalid = || {
            let problem = Problem::new(format!("invalid check option {part:?}"));
            problem.hint("write check=skip=Rule,Rule;error=true")
        };
        let (key, value) = part.split_once('=').ok_or_else(invalid)?;
        match (key.trim(), value.trim()) {
            ("skip", "all") => config.skip_all = true,
            ("skip", value) => config.skip = names(value),
            ("experimental", "all") => config.experimental_all = true,
            ("experimental", value) => config.experimental = names(value),
            ("error", value) => config.error = bool_word(value).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        }
    }
    Ok(config)
}
