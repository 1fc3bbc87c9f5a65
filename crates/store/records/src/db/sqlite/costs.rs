//! Which statements take long.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// From how long on a statement does not run on a thread that serves others too.
const DEAR: Duration = Duration::from_millis(1);
/// How often a statement that was dear has to be cheap before it counts as cheap again.
const CHEAP_AGAIN: u32 = 8;

/// Remembers statements that took long the last time.
#[derive(Debug, Default)]
pub(super) struct Costs {
    hasher: RandomState,
    /// By the hash of its text, how often a statement has to be cheap yet. Texts come from this
    /// program, so there are few.
    dear: RwLock<HashMap<u64, u32>>,
}

impl Costs {
    /// Says whether a statement is to run where blocking is allowed.
    pub(super) fn is_dear(&self, sql: &str) -> bool {
        let dear = self.dear.read().unwrap_or_else(PoisonError::into_inner);
        !dear.is_empty() && dear.contains_key(&self.hasher.hash_one(sql))
    }

    /// Does a statement and remembers whether it took long.
    pub(super) fn timed<T>(&self, sql: &str, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.took(sql, begun.elapsed());
        done
    }

    fn took(&self, sql: &str, time: Duration) {
        if time < DEAR && !self.is_dear(sql) {
            return;
        }
        let mut dear = self.dear.write().unwrap_or_else(PoisonError::into_inner);
        let hash = self.hasher.hash_one(sql);
        if time >= DEAR {
            dear.insert(hash, CHEAP_AGAIN);
        } else if let Some(left) = dear.get_mut(&hash) {
            *left -= 1;
            if *left == 0 {
                dear.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_took_long_is_dear_until_it_was_cheap_often() {
        let costs = Costs::default();
        costs.took("SELECT 1", DEAR / 2);
        assert!(!costs.is_dear("SELECT 1"));
        costs.took("SELECT 1", DEAR);
        assert!(costs.is_dear("SELECT 1") && !costs.is_dear("SELECT 2"));
        for _ in 1..CHEAP_AGAIN {
            costs.took("SELECT 1", DEAR / 2);
        }
        assert!(costs.is_dear("SELECT 1"));
        costs.took("SELECT 1", DEAR / 2);
        assert!(!costs.is_dear("SELECT 1"));
    }
}
