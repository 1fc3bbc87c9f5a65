//! Which daemon runs a build: the one that ran it last, whose cache is warm, else the one with the
//! least to do; of several that have equally much to do always the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::{Digest, Hasher};

use crate::address::Address;

/// The most builds whose last daemon is remembered.
const REMEMBERED_MAX: usize = 10_000;
/// How many builds more than the least busy daemon has one may have and still be preferred for its
/// cache.
const AHEAD_MAX: usize = 4;
/// How long a daemon that was lost is asked last.
const REST: Duration = Duration::from_secs(30);
/// How long a `# syntax=` image that could not be had is not asked for again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(600);

/// The daemons, and what is known of them.
pub(crate) struct Pool {
    addresses: Vec<Address>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    /// The last daemon of a build's identity, and when.
    last: HashMap<String, (usize, Instant)>,
}

#[derive(Default, Clone)]
struct Member {
    running: usize,
    lost: Option<Instant>,
    /// Whether it lacks the exporter of archives; none until that is known.
    lacks_archives: Option<bool>,
    no_syntax: HashMap<String, Instant>,
}

/// The right to run one build on a daemon; counts as load while it lives.
pub(crate) struct Turn<'a> {
    pool: &'a Pool,
    number: usize,
}

impl Pool {
    pub(crate) fn new(addresses: Vec<Address>) -> Self {
        let members = vec![Member::default(); addresses.len()];
        Self { addresses, state: Mutex::new(State { members, last: HashMap::new() }) }
    }

    /// Picks a daemon that was not tried before; none when all were.
    pub(crate) fn pick(&self, identity: &str, tried: &[usize], now: Instant) -> Option<Turn<'_>> {
        let mut state = self.state();
        let preferred = state.last.get(identity).map(|(number, _)| *number);
        let free = (0..self.addresses.len()).filter(|n| !tried.contains(n));
        let rests = |m: &Member| m.lost.is_some_and(|at| now.duration_since(at) < REST);
        let members = &state.members;
        let lot = |n: usize| lot(identity, &self.addresses[n]);
        let least = free.min_by_key(|n| (rests(&members[*n]), members[*n].running, lot(*n)))?;
        let warm = preferred.filter(|n| {
            !tried.contains(n)
                && !rests(&members[*n])
                && members[*n].running <= members[least].running + AHEAD_MAX
        });
        let number = warm.unwrap_or(least);
        state.members[number].running += 1;
        drop(state);
        Some(Turn { pool: self, number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders daemons that have equally much to do. The order of a build is its own, and the same in every
/// process that names these daemons: one that starts anew finds the caches again.
fn lot(identity: &str, address: &Address) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field("buildkit daemon").field(identity).field(address.to_string());
    hasher.finish()
}

impl Turn<'_> {
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn address(&self) -> &Address {
        &self.pool.addresses[self.number]
    }

    /// Remembers that this daemon has the build's cache now.
    pub(crate) fn remember(&self, identity: &str, now: Instant) {
        let mut state = self.pool.state();
        if state.last.len() >= REMEMBERED_MAX && !state.last.contains_key(identity) {
            let oldest = state.last.iter().min_by_key(|(_, (_, at))| *at).map(|(k, _)| k.clone());
            oldest.map(|key| state.last.remove(&key));
        }
        state.last.insert(identity.to_owned(), (self.number, now));
        state.members[self.number].lost = None;
    }

    /// Remembers that the daemon was lost.
    pub(crate) fn lost(&self, now: Instant) {
        let mut state = self.pool.state();
        let member = &mut state.members[self.number];
        // Another daemon may answer there next time.
        *member = Member { running: member.running, lost: Some(now), ..Member::default() };
    }

    pub(crate) fn lacks_archives(&self) -> bool {
        self.pool.state().members[self.number].lacks_archives.unwrap_or(false)
    }

    pub(crate) fn learn_archives(&self, lacks: bool) {
        self.pool.state().members[self.number].lacks_archives = Some(lacks);
    }

    /// Says whether the image of a `# syntax=` line could not be had a while ago.
    pub(crate) fn lacks_syntax(&self, image: &str, now: Instant) -> bool {
        let state = self.pool.state();
        let asked = state.members[self.number].no_syntax.get(image);
        asked.is_some_and(|at| now.duration_since(*at) < UNREACHABLE_FOR)
    }

    pub(crate) fn learn_no_syntax(&self, image: &str, now: Instant) {
        let mut state = self.pool.state();
        let known = &mut state.members[self.number].no_syntax;
        known.retain(|_, at| now.duration_since(*at) < UNREACHABLE_FOR);
        known.insert(image.to_owned(), now);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pool.state().members[self.number].running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize) -> Pool {
        Pool::new((0..count).map(|n| format!("/daemon{n}").parse().unwrap()).collect())
    }

    /// Returns the daemon that an idle pool gives a build.
    fn first(pool: &Pool, identity: &str, now: Instant) -> usize {
        pool.pick(identity, &[], now).unwrap().number()
    }

    #[test]
    fn the_warm_daemon_first_then_the_idle_one() {
        let (pool, now) = (pool(3), Instant::now());
        let one = pool.pick("a", &[], now).unwrap();
        let two = pool.pick("b", &[], now).unwrap();
        assert_ne!(one.number(), two.number(), "the first is busy");
        let three = pool.pick("b", &[], now).unwrap();
        assert!(![one.number(), two.number()].contains(&three.number()));
        // Another daemon than the one that it would be given.
        let warm = [&one, &two].into_iter().find(|t| t.number() != first_of(3, "c")).unwrap();
        warm.remember("c", now);
        let warm = warm.number();
        drop((one, two, three));
        assert_eq!(first(&pool, "c", now), warm);
    }

    fn first_of(count: usize, identity: &str) -> usize {
        first(&pool(count), identity, Instant::now())
    }

    #[test]
    fn a_build_comes_to_the_same_daemon_in_another_process_whatever_the_order_of_addresses() {
        let addresses = |names: [&str; 3]| names.iter().map(|n| n.parse().unwrap()).collect();
        let one = Pool::new(addresses(["/a", "/b", "/c"]));
        let other = Pool::new(addresses(["/c", "/a", "/b"]));
        let now = Instant::now();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..50 {
            let identity = format!("build {number}");
            let address =
                |pool: &Pool| pool.pick(&identity, &[], now).unwrap().address().to_string();
            assert_eq!(address(&one), address(&other));
            seen.insert(address(&one));
        }
        assert_eq!(seen.len(), 3, "builds are spread over all");
    }

    #[test]
    fn a_warm_daemon_that_is_far_busier_is_passed_over() {
        let (pool, now) = (pool(2), Instant::now());
        pool.pick("a", &[], now).unwrap().remember("a", now);
        let warm = first(&pool, "a", now);
        let held: Vec<_> = (0..=AHEAD_MAX).map(|_| pool.pick("a", &[], now).unwrap()).collect();
        assert!(held.iter().all(|t| t.number() == warm));
        assert_ne!(first(&pool, "a", now), warm);
    }

    #[test]
    fn a_lost_daemon_rests_and_is_still_asked_when_no_other_is_left() {
        let (pool, now) = (pool(2), Instant::now());
        let turn = pool.pick("a", &[], now).unwrap();
        turn.remember("a", now);
        turn.lost(now);
        let lost = turn.number();
        drop(turn);
        let other = first(&pool, "a", now);
        assert_ne!(other, lost);
        assert_eq!(pool.pick("a", &[other], now).unwrap().number(), lost);
        assert_eq!(first(&pool, "a", now + REST), lost);
        assert!(pool.pick("a", &[0, 1], now).is_none());
    }
}
