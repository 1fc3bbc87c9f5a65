//! One question for many who ask it at the same time.
//!
//! Builds that begin at once ask a registry what the same tag leads to. Whoever asks while the same
//! question is under way waits for its end, and then one asks for all who wait: no answer is older
//! than the wish for it, so what somebody has pushed just before is seen. The wish of a build that
//! stood in a queue is as old as the build: it takes an answer that another one got meanwhile.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often those who wait look whether they shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an answer is kept for those whose wish is older: no longer than clocks of servers may
/// differ without harm, since one says when a build was accepted and another one asks.
const KEPT_MAX: Duration = Duration::from_secs(5);

/// Questions under way, by what they are about.
#[derive(Debug)]
pub(super) struct Joined<K, T> {
    seats: Mutex<HashMap<K, Seat<T>>>,
    changed: Condvar,
}

impl<K, T> Default for Joined<K, T> {
    fn default() -> Self {
        Self { seats: Mutex::default(), changed: Condvar::new() }
    }
}

/// Who asks about one thing, and who waits.
#[derive(Debug)]
struct Seat<T> {
    is_taken: bool,
    waiting: Option<Arc<Round<T>>>,
    /// The last answer, and when it was asked for.
    last: Option<(Instant, T)>,
}

impl<T> Seat<T> {
    const fn new() -> Self {
        Self { is_taken: false, waiting: None, last: None }
    }

    /// Whether somebody asks, waits, or may still take the last answer.
    fn is_used(&self) -> bool {
        let waits = self.waiting.as_ref().is_some_and(|round| Arc::strong_count(round) > 1);
        let is_kept = |(asked, _): &(Instant, T)| asked.elapsed() < KEPT_MAX;
        self.is_taken || waits || self.last.as_ref().is_some_and(is_kept)
    }
}

/// What came of the question for those who wait: an answer, or none that others can use.
type Round<T> = OnceLock<Option<T>>;

impl<K: Eq + Hash + Clone, T: Clone> Joined<K, T> {
    /// Asks, or takes the answer to a question that somebody else began since then, a few seconds
    /// ago at most. Whoever gets none from others, or shall stop meanwhile, asks by itself.
    pub(super) fn ask<E>(
        &self,
        about: &K,
        since: Instant,
        shall_stop: impl Fn() -> bool,
        question: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut seats = self.lock();
        seats.retain(|_, seat| seat.is_used());
        let seat = seats.entry(about.clone()).or_insert_with(Seat::new);
        if let Some((_, answer)) = seat.last.as_ref().filter(|(asked, _)| *asked >= since) {
            return Ok(answer.clone());
        }
        let round = Arc::clone(seat.waiting.get_or_insert_default());
        loop {
            match round.get() {
                Some(Some(answer)) => return Ok(answer.clone()),
                Some(None) => break,
                None => {}
            }
            if let Some(seat) = seats.get_mut(about).filter(|seat| !seat.is_taken) {
                // Whoever asks from here on waits for the next round.
                (seat.is_taken, seat.waiting) = (true, None);
                drop(seats);
                let turn = Turn { joined: self, about, round: &round };
                let begun = Instant::now();
                let answer = question();
                turn.over(begun, answer.as_ref().ok());
                return answer;
            }
            if shall_stop() {
                break;
            }
            let waited = self.changed.wait_timeout(seats, LOOK_EVERY);
            seats = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // In this order: whoever asks now then sees that nobody waits any more.
        drop(round);
        drop(seats);
        question()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Seat<T>>> {
        // Nothing in between can fail: a panic leaves the state whole.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to ask; given back however the question ends.
struct Turn<'a, K: Eq + Hash, T> {
    joined: &'a Joined<K, T>,
    about: &'a K,
    round: &'a Round<T>,
}

impl<K: Eq + Hash + Clone, T: Clone> Turn<'_, K, T> {
    fn over(self, begun: Instant, answer: Option<&T>) {
        // The first word counts: this one, or that of a turn that a panic ended.
        let _ = self.round.set(answer.cloned());
        if let Some(seat) = self.joined.lock().get_mut(self.about) {
            seat.last = answer.map(|answer| (begun, answer.clone()));
        }
    }
}

impl<K: Eq + Hash, T> Drop for Turn<'_, K, T> {
    fn drop(&mut self) {
        let _ = self.round.set(None);
        let mut seats = self.joined.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = seats.get_mut(self.about) {
            seat.is_taken = false;
        }
        drop(seats);
        self.joined.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    type Questions = Joined<&'static str, usize>;

    fn never() -> bool {
        false
    }

    fn now() -> Instant {
        Instant::now()
    }

    /// Says whether nobody asks or waits.
    fn is_still(joined: &Questions) -> bool {
        let mut seats = joined.lock();
        seats.values_mut().for_each(|seat| seat.last = None);
        seats.values().all(|seat| !seat.is_used())
    }

    fn waiting(joined: &Questions) -> usize {
        let seats = joined.lock();
        seats.get("tag").and_then(|s| s.waiting.as_ref()).map_or(0, |w| Arc::strong_count(w) - 1)
    }

    /// Begins a question that stays under way until `n` others wait for it.
    fn while_others_wait(
        n: usize,
        others: impl Fn(&Questions, usize) -> Result<usize, &'static str> + Sync,
    ) -> (usize, Vec<Result<usize, &'static str>>) {
        let (joined, begun) = (Questions::default(), mpsc::channel());
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                joined.ask(&"tag", now(), never, || {
                    begun.0.send(()).unwrap();
                    while waiting(&joined) < n {
                        std::thread::yield_now();
                    }
                    Ok::<_, ()>(0)
                })
            });
            begun.1.recv().unwrap();
            let (joined, others) = (&joined, &others);
            let threads: Vec<_> = (1..=n).map(|i| scope.spawn(move || others(joined, i))).collect();
            let answers = threads.into_iter().map(|t| t.join().unwrap()).collect();
            let first = first.join().unwrap().unwrap();
            assert!(is_still(joined), "nothing is left behind");
            (first, answers)
        })
    }

    #[test]
    fn those_who_come_meanwhile_share_one_later_question() {
        let asked = AtomicUsize::new(0);
        let (first, others) = while_others_wait(8, |joined, i| {
            joined.ask(&"tag", now(), never, || {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(i)
            })
        });
        assert_eq!((first, asked.into_inner()), (0, 1));
        assert!(others[0].is_ok() && others.iter().all(|a| a == &others[0]), "{others:?}");
        assert_ne!(others[0], Ok(0), "an answer to a question that was asked before");
    }

    #[test]
    fn who_waited_long_takes_an_answer_that_came_meanwhile() {
        let joined = Questions::default();
        let long_ago = now();
        let ask = |since, answer| joined.ask(&"tag", since, never, || answer);
        assert_eq!(ask(now(), Ok::<_, ()>(1)), Ok(1));
        assert_eq!(ask(long_ago, Ok::<_, ()>(2)), Ok(1));
        // Whoever comes later than the question asks anew, and what it hears is the last word.
        assert_eq!(ask(now(), Ok::<_, ()>(3)), Ok(3));
        assert_eq!(ask(long_ago, Ok::<_, ()>(4)), Ok(3));
        assert_eq!(ask(now(), Err(())), Err(()));
        assert_eq!(ask(long_ago, Ok::<_, ()>(5)), Ok(5));
        if let Some(seat) = joined.lock().get_mut("tag") {
            seat.last = now().checked_sub(KEPT_MAX).map(|asked| (asked, 6));
        }
        assert_eq!(joined.ask(&"other", now(), never, || Ok::<_, ()>(7)), Ok(7));
        assert!(!joined.lock().contains_key("tag"), "nothing is kept for longer");
    }

    #[test]
    fn a_failure_is_nobody_elses() {
        let asked = AtomicUsize::new(0);
        let (_, others) = while_others_wait(4, |joined, i| {
            joined.ask(&"tag", now(), never, || match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err("refused"),
                _ => Ok(i),
            })
        });
        assert_eq!(others.iter().filter(|answer| answer.is_err()).count(), 1, "{others:?}");
        assert_eq!(asked.into_inner(), 4);
    }

    #[test]
    fn other_things_are_asked_beside_and_a_panic_frees_its_place() {
        let joined = Questions::default();
        let inner = joined.ask(&"tag", now(), never, || {
            // Whoever shall stop does not wait.
            let same = joined.ask(&"tag", now(), || true, || Ok::<_, ()>(1));
            let other = joined.ask(&"other", now(), never, || Ok::<_, ()>(2));
            Ok::<_, ()>(same.unwrap() + other.unwrap())
        });
        assert_eq!(inner, Ok(3));
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| joined.ask(&"tag", now(), never, || -> Result<_, ()> { panic!() }))
                .join()
        });
        assert!(panicked.is_err());
        assert_eq!(joined.ask(&"tag", now(), never, || Ok::<_, ()>(4)), Ok(4));
        assert!(is_still(&joined));
    }
}
