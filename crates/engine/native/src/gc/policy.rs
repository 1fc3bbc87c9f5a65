//! Which items go: pure, so that every case is a test.

use std::time::Duration;

use super::{Item, Usage, Use};

/// While builds run, what is younger than this is spared: a build may be about to refer to it.
pub const GRACE: Duration = Duration::from_secs(3600);

/// How long unused results stay when no bound is set.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(14 * 24 * 3600);

/// The bounds of one collection. What is needed never goes, whatever they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcPolicy {
    /// The most bytes that the data directory shall hold.
    pub used_bytes_max: Option<u64>,
    /// Bytes that shall be free on its file system.
    pub free_bytes_min: Option<u64>,
    /// What was used this lately stays. Without bounds, what was not goes; with neither,
    /// [`IDLE_DEFAULT`] counts.
    pub keep: Option<Duration>,
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing refers to it.
    Unused,
    /// It was not used for long.
    Idle,
    /// The data directory holds more than it shall.
    OverBudget,
    /// The disk has less free than it shall.
    DiskFull,
}

impl Why {
    /// Returns the reason for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unused => "nothing refers to it",
            Self::Idle => "not used lately",
            Self::OverBudget => "over --max-used, used longest ago",
            Self::DiskFull => "under --min-free, used longest ago",
        }
    }
}

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Indexes into the usage's items, and why.
    pub remove: Vec<(usize, Why)>,
    /// Bytes that are freed. Files that layers share are counted in each.
    pub freed_bytes: u64,
    /// Bytes that are still missing to the bounds, since all that is left is needed.
    pub missing_bytes: u64,
}

/// Decides what goes: what nothing refers to first, then what was used longest ago.
pub fn decide(usage: &Usage, policy: &GcPolicy) -> Plan {
    let bounded = policy.used_bytes_max.is_some() || policy.free_bytes_min.is_some();
    let keep = policy.keep.unwrap_or(if bounded { Duration::ZERO } else { IDLE_DEFAULT });
    let age = |i: &Item| usage.now.duration_since(i.last_used).unwrap_or_default();
    let mut order: Vec<usize> =
        (0..usage.items.len()).filter(|&i| usage.items[i].holders.is_empty()).collect();
    order.sort_by_key(|&i| {
        let item = &usage.items[i];
        (item.good_for != Use::None, item.last_used, i)
    });
    let mut plan = Plan::default();
    for index in order {
        let item = &usage.items[index];
        let young = usage.busy && age(item) < GRACE;
        let (over_used, over_free) = excess(usage, policy, plan.freed_bytes);
        let why = match item.good_for {
            _ if young => None,
            Use::None => Some(Why::Unused),
            Use::Cache if age(item) < keep => None,
            Use::Cache if !bounded => Some(Why::Idle),
            Use::Cache if over_used > 0 => Some(Why::OverBudget),
            Use::Cache if over_free > 0 => Some(Why::DiskFull),
            Use::Cache => None,
        };
        if let Some(why) = why {
            plan.remove.push((index, why));
            plan.freed_bytes = plan.freed_bytes.saturating_add(item.bytes);
        }
    }
    let (over_used, over_free) = excess(usage, policy, plan.freed_bytes);
    plan.missing_bytes = over_used.max(over_free);
    plan
}

/// Returns by how many bytes the two bounds are passed when `freed` bytes are gone.
fn excess(usage: &Usage, policy: &GcPolicy, freed: u64) -> (u64, u64) {
    let used = usage.total_bytes().saturating_sub(freed);
    let free = usage.free_bytes.saturating_add(freed);
    (
        policy.used_bytes_max.map_or(0, |max| used.saturating_sub(max)),
        policy.free_bytes_min.map_or(0, |min| min.saturating_sub(free)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::{Holder, ItemKind};
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn item(bytes: u64, days: u64, held: bool, good_for: Use) -> Item {
        Item {
            kind: ItemKind::Records,
            name: String::new(),
            bytes,
            last_used: SystemTime::UNIX_EPOCH + Duration::from_secs((1000 - days) * DAY),
            holders: if held { vec![Holder::Always] } else { Vec::new() },
            good_for,
        }
    }

    fn usage(items: Vec<Item>) -> Usage {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
        Usage { items, free_bytes: 100, now, busy: false, untagged: [].into() }
    }

    #[test]
    fn without_bounds_only_the_unused_and_the_old_go() {
        let usage = usage(vec![
            item(1, 1, false, Use::Cache),
            item(2, 20, false, Use::Cache),
            item(4, 0, false, Use::None),
            item(8, 99, true, Use::Cache),
        ]);
        let plan = decide(&usage, &GcPolicy::default());
        assert_eq!(plan.remove, [(2, Why::Unused), (1, Why::Idle)]);
        assert_eq!((plan.freed_bytes, plan.missing_bytes), (6, 0));
        let all = GcPolicy { keep: Some(Duration::ZERO), ..GcPolicy::default() };
        assert_eq!(decide(&usage, &all).remove.len(), 3);
    }

    #[test]
    fn a_budget_takes_the_oldest_and_says_what_is_missing() {
        let usage = usage(vec![
            item(10, 1, false, Use::Cache),
            item(10, 3, false, Use::Cache),
            item(10, 2, true, Use::Cache),
        ]);
        let fits = GcPolicy { used_bytes_max: Some(20), ..GcPolicy::default() };
        assert_eq!(decide(&usage, &fits).remove, [(1, Why::OverBudget)]);
        let tight = GcPolicy { used_bytes_max: Some(5), ..GcPolicy::default() };
        assert_eq!(decide(&usage, &tight).missing_bytes, 5);
        let free = GcPolicy { free_bytes_min: Some(105), ..GcPolicy::default() };
        assert_eq!(decide(&usage, &free).remove, [(1, Why::DiskFull)]);
    }

    #[test]
    fn what_is_young_is_spared_while_builds_run() {
        let mut usage = usage(vec![item(1, 0, false, Use::None), item(1, 1, false, Use::None)]);
        usage.busy = true;
        assert_eq!(decide(&usage, &GcPolicy::default()).remove, [(1, Why::Unused)]);
    }

    proptest! {
        #[test]
        fn what_is_needed_stays_and_bounds_hold_or_are_reported(
            items in proptest::collection::vec((0u64..100, 0u64..90, any::<bool>(), any::<bool>()), 0..30),
            max in proptest::option::of(0u64..2000),
            min in proptest::option::of(0u64..2000),
            keep in proptest::option::of(0u64..60),
            busy in any::<bool>(),
        ) {
            let good_for = |cache| if cache { Use::Cache } else { Use::None };
            let items = items.into_iter().map(|(b, d, h, c)| item(b, d, h, good_for(c))).collect();
            let usage = Usage { busy, ..usage(items) };
            let keep = keep.map(|d| Duration::from_secs(d * DAY));
            let policy = GcPolicy { used_bytes_max: max, free_bytes_min: min, keep };
            let plan = decide(&usage, &policy);
            let mut seen = std::collections::BTreeSet::new();
            for (index, _) in &plan.remove {
                prop_assert!(usage.items[*index].holders.is_empty());
                prop_assert!(seen.insert(*index));
            }
            let freed: u64 = plan.remove.iter().map(|(i, _)| usage.items[*i].bytes).sum();
            prop_assert_eq!(freed, plan.freed_bytes);
            let used = usage.total_bytes() - freed;
            let lacks = max.map_or(0, |m| used.saturating_sub(m))
                .max(min.map_or(0, |m| m.saturating_sub(usage.free_bytes + freed)));
            prop_assert_eq!(lacks, plan.missing_bytes);
        }
    }
}
