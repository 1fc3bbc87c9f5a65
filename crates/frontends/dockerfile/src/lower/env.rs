//! The variables that a step sees, in the order in which they were last set.

use std::collections::BTreeMap;

use crate::expand::Variables;

/// Variables of a stage: `ENV` and declared `ARG` together, the later one winning.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    next: u64,
    values: BTreeMap<String, (u64, String)>,
}

impl Env {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.next += 1;
        self.values.insert(name.to_owned(), (self.next, value.to_owned()));
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Returns all of them as a process gets them.
    pub(super) fn list(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.values.iter().map(|(n, (at, v))| (at, n, v)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, n, v)| (n.clone(), v.clone())).collect()
    }
}

impl Variables for Env {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, v)| v.as_str())
    }
}
