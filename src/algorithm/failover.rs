//! Priority groups: the shares of the calls that go to the primary endpoints, to the standby, to a far region.
//!
//! Plain code: times are nanoseconds from the origin of the balancer, and randomness is an argument. [`Capacities`]
//! belongs to the thread that evaluates the health of the groups; calls read [`Split`].
//!
//! # How it works
//!
//! **Spilling over.** A group can take `min(1, 1.4 · healthy share)` of the calls: a group that has lost two of seven
//! endpoints still takes all, because the other endpoints have the spare capacity (Envoy's overprovisioning factor).
//! The first group gets as many calls as it can take, the next one the rest, and so on. If all groups together cannot
//! take all calls, each gets its share. If no endpoint is healthy, the shares stay: the measured health may be wrong,
//! and another group fails as well.
//!
//! **Coming back.** The trusted capacity of a group falls at once and rises slowly. It rises only after the group could
//! have taken more for the whole `failback_delay`, so that calls do not move to and fro when endpoints change often. It
//! then rises from none to all calls in `failback_ramp`, so that the group is not overloaded with cold caches. It rises
//! at once as far as the other groups cannot take the calls.

use std::time::Duration;

use crate::nanos::{after, whole_nanos};
use crate::sync::{AtomicU64, Ordering};

/// Number of priorities.
pub(crate) const PRIORITIES: usize = 8;
/// The last of them.
pub(crate) const LAST: u8 = PRIORITIES as u8 - 1;

/// The number of steps of a ramp.
const STEPS: u64 = 50;
/// Below this, two shares are the same.
const NEGLIGIBLE: f64 = 1e-9;
/// Longest time between looks at the groups, because an opening circuit breaker is not reported.
const LOOK: u64 = 150_000_000;
/// Shortest time between looks, however many endpoints are about to return.
const MIN_LOOK: u64 = 50_000_000;

/// The rule by which calls move from one priority group to the next, and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    /// The load that an endpoint can take, as a multiple of its share.
    pub(crate) overprovisioning_factor: f64,
    /// The time for which a group must have been able to take more calls before it gets them.
    pub(crate) failback_delay: Duration,
    /// The time from no calls to all calls.
    pub(crate) failback_ramp: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            overprovisioning_factor: 1.4,
            failback_delay: Duration::from_secs(10),
            failback_ramp: Duration::from_secs(30),
        }
    }
}

impl Rule {
    /// Returns the capacity of a group.
    fn capacity(&self, group: Group) -> f64 {
        if group.is_empty() {
            return 0.0;
        }
        (self.overprovisioning_factor * group.healthy / group.whole).clamp(0.0, 1.0)
    }
}

/// The endpoints of one priority, by their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Group {
    /// The weight of the healthy endpoints.
    pub(crate) healthy: f64,
    /// The weight of all endpoints.
    pub(crate) whole: f64,
}

impl Group {
    pub(crate) fn is_empty(self) -> bool {
        self.whole <= 0.0
    }
}

/// The groups by their priority. A priority without endpoints has an empty group.
pub(crate) type Groups = [Group; PRIORITIES];

/// The trusted capacity of each group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capacities {
    groups: [GroupCapacity; PRIORITIES],
    /// The last shares of the groups.
    parts: [f64; PRIORITIES],
    /// Time of the last look.
    at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct GroupCapacity {
    trusted: f64,
    /// The time since which it could take more than its trusted capacity.
    better_since: Option<u64>,
    /// `true` if it has had an endpoint. A new group is trusted at once, as in a new balancer.
    is_known: bool,
}

/// The share of each group, and the time of the next look.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub(crate) struct Shares {
    /// They add up to 1, unless no group has an endpoint.
    pub(crate) parts: [f64; PRIORITIES],
    /// `true` if all groups together can take all calls.
    pub(crate) suffice: bool,
    /// Time at which the shares change even if no endpoint changes its health; `None` if they stay.
    pub(crate) again: Option<u64>,
}

impl Capacities {
    /// Updates the shares by the health of the groups.
    pub(crate) fn update(&mut self, rule: &Rule, groups: &Groups, now: u64) -> Shares {
        let capacities = groups.map(|group| rule.capacity(group));
        let is_alone = groups.iter().filter(|group| !group.is_empty()).count() == 1;
        for (place, trust) in self.groups.iter_mut().enumerate() {
            if groups[place].is_empty() && !trust.is_known {
                continue;
            }
            if !groups[place].is_empty() && (is_alone || !trust.is_known) {
                // No other group can take the calls. The capacity of this one matters once there is another group.
                *trust = GroupCapacity::of(if is_alone { 1.0 } else { capacities[place] });
            } else {
                trust.follow(rule, capacities[place], self.at, now);
            }
        }
        self.at = self.at.max(now);
        self.fill(&capacities);
        let trusted = self.groups.map(|trust| trust.trusted);
        self.parts = shares(&trusted, groups, &self.parts);
        Shares {
            parts: self.parts,
            suffice: capacities.iter().sum::<f64>() >= 1.0 - NEGLIGIBLE,
            again: self.again(rule, &capacities, now),
        }
    }

    /// Time of the last look.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Raises trusted capacities at once as far as the other groups cannot take the calls.
    fn fill(&mut self, capacities: &[f64; PRIORITIES]) {
        let trusted: f64 = self.groups.iter().map(|trust| trust.trusted).sum();
        let mut missing = 1.0 - trusted;
        for (trust, capacity) in self.groups.iter_mut().zip(capacities) {
            let rise = (capacity - trust.trusted).min(missing).max(0.0);
            trust.trusted += rise;
            missing -= rise;
        }
    }

    fn again(&self, rule: &Rule, capacities: &[f64], now: u64) -> Option<u64> {
        let step = (whole_nanos(rule.failback_ramp) / STEPS).max(1);
        let rising = self.groups.iter().zip(capacities);
        rising
            .filter(|(trust, capacity)| trust.trusted + NEGLIGIBLE < **capacity)
            .map(|(trust, _)| {
                let held_until = trust.held_until(rule, now);
                held_until.max(now).saturating_add(step)
            })
            .min()
    }
}

impl GroupCapacity {
    fn of(capacity: f64) -> Self {
        Self {
            trusted: capacity,
            better_since: None,
            is_known: true,
        }
    }

    fn follow(&mut self, rule: &Rule, capacity: f64, before: u64, now: u64) {
        if capacity <= self.trusted + NEGLIGIBLE {
            self.trusted = capacity;
            self.better_since = None;
            return;
        }
        self.better_since.get_or_insert(now);
        let held_until = self.held_until(rule, now);
        if now < held_until {
            return;
        }
        let climbed = now.saturating_sub(held_until.max(before)) as f64;
        let risen = match whole_nanos(rule.failback_ramp) {
            0 => capacity,
            ramp => self.trusted + climbed / ramp as f64,
        };
        self.trusted = risen.min(capacity);
    }

    /// Returns the time until which the trusted capacity does not rise.
    fn held_until(&self, rule: &Rule, now: u64) -> u64 {
        let since = self.better_since.unwrap_or(now);
        after(since, rule.failback_delay)
    }
}

/// Gives each group as many of the remaining calls as it can take. If no group can take any, the shares stay.
fn shares(
    capacities: &[f64; PRIORITIES],
    groups: &Groups,
    former: &[f64; PRIORITIES],
) -> [f64; PRIORITIES] {
    let total = capacities.iter().sum::<f64>().min(1.0);
    let mut shares = [0.0; PRIORITIES];
    if total <= 0.0 {
        let mut parts = former.iter().zip(groups);
        let is_possible = parts.all(|(part, group)| *part <= 0.0 || !group.is_empty());
        if is_possible && former.iter().sum::<f64>() > 0.0 {
            return *former;
        }
        if let Some(first) = groups.iter().position(|group| !group.is_empty()) {
            shares[first] = 1.0;
        }
        return shares;
    }
    let mut left = 1.0;
    for (share, capacity) in shares.iter_mut().zip(capacities) {
        *share = (capacity / total).min(left);
        left -= *share;
    }
    shares
}

/// Division of the calls among the groups. Each call reads it without a lock.
#[derive(Debug)]
pub(crate) struct Split {
    /// End of the share of each group, out of [`WHOLE`]: one byte for each, the first group in the lowest. They are in
    /// one word, so that no call reads a mixture of two divisions.
    ends: AtomicU64,
    /// Time of the next look at the groups.
    due: AtomicU64,
}

/// All calls. The resolution of a share is 0.4 %.
const WHOLE: u8 = u8::MAX;

impl Split {
    /// Makes a division in which all calls go to the first group, until the first look.
    pub(crate) fn new() -> Self {
        Self {
            ends: AtomicU64::new(u64::MAX),
            due: AtomicU64::new(0),
        }
    }

    /// Sets the shares. The next look is at `until`, if this is neither too soon nor too late.
    pub(crate) fn set(&self, shares: &[f64; PRIORITIES], now: u64, until: u64) {
        let mut sum = 0.0;
        let ends = shares.map(|share| {
            sum += share;
            (sum * f64::from(WHOLE)).round() as u8
        });
        self.ends.store(u64::from_le_bytes(ends), Ordering::Relaxed);
        let (earliest, latest) = (now.saturating_add(MIN_LOOK), now.saturating_add(LOOK));
        self.due
            .store(until.clamp(earliest, latest), Ordering::Relaxed);
    }

    /// Returns the priority of the group for a call, by 32 random bits.
    #[inline]
    pub(crate) fn choose(&self, random: u32) -> usize {
        let ends = self.ends.load(Ordering::Relaxed).to_le_bytes();
        let draw = (u64::from(random) * u64::from(WHOLE)) >> u32::BITS;
        let place = ends.iter().position(|end| draw < u64::from(*end));
        place.unwrap_or(0)
    }

    /// Returns whether the caller must look at the groups. It is `true` for only one of several callers at a time.
    #[inline]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due <= now && self.claim(due, now)
    }

    #[cold]
    fn claim(&self, due: u64, now: u64) -> bool {
        let (is, fails) = (Ordering::Relaxed, Ordering::Relaxed);
        let next = now.saturating_add(LOOK);
        self.due.compare_exchange(due, next, is, fails).is_ok()
    }

    /// Makes the next call look at the groups, because the present one could not.
    pub(crate) fn look_next(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these shares are exact")]

    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn group(healthy: u32, whole: u32) -> Group {
        Group {
            healthy: healthy.into(),
            whole: whole.into(),
        }
    }

    /// The first groups are these; the others are empty.
    fn all(groups: &[Group]) -> Groups {
        let mut all = Groups::default();
        all[..groups.len()].copy_from_slice(groups);
        all
    }

    /// The shares of as many groups. The others get nothing.
    fn percent(shares: &[f64; PRIORITIES], groups: usize) -> Vec<u32> {
        let (shares, rest) = shares.split_at(groups);
        assert!(rest.iter().all(|share| *share == 0.0));
        shares
            .iter()
            .map(|share| (100.0 * share).round() as u32)
            .collect()
    }

    /// The shares of groups that are seen for the first time.
    fn fresh(groups: &[Group]) -> Vec<u32> {
        let shares = Capacities::default().update(&Rule::default(), &all(groups), 0);
        assert_eq!(shares.again, None);
        percent(&shares.parts, groups.len())
    }

    #[test]
    fn calls_spill_over_as_the_healthy_share_falls() {
        let shares = |healthy| fresh(&[group(healthy, 100), group(100, 100), group(100, 100)]);
        assert_eq!(shares(100), [100, 0, 0]);
        assert_eq!(shares(72), [100, 0, 0]);
        assert_eq!(shares(71), [99, 1, 0]);
        assert_eq!(shares(50), [70, 30, 0]);
        assert_eq!(shares(25), [35, 65, 0]);
        assert_eq!(shares(0), [0, 100, 0]);
    }

    #[test]
    fn a_group_that_is_not_well_either_takes_what_it_can() {
        assert_eq!(
            fresh(&[group(5, 10), group(1, 10), group(10, 10)]),
            [70, 14, 16]
        );
        assert_eq!(fresh(&[group(2, 10), group(2, 10)]), [50, 50], "not enough");
        assert_eq!(fresh(&[group(2, 10), group(6, 10)]), [28, 72]);
        assert_eq!(fresh(&[group(0, 10), group(0, 10)]), [100, 0], "none");
        assert_eq!(fresh(&[group(0, 0), group(0, 10)]), [0, 100], "no primary");
        assert_eq!(
            fresh(&[group(0, 0), group(1, 10), group(10, 10)]),
            [0, 14, 86]
        );
        assert_eq!(fresh(&[group(0, 0), group(0, 0)]), [0, 0]);
        assert!(fresh(&[]).is_empty());
    }

    /// An active group of ten endpoints and a standby of ten.
    struct Bench {
        trusts: Capacities,
        rule: Rule,
        now: u64,
        standby: u32,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                trusts: Capacities::default(),
                rule: Rule::default(),
                now: SECOND,
                standby: 10,
            };
            assert_eq!(bench.active(10), 100);
            bench
        }

        fn update(&mut self, healthy: u32) -> Shares {
            let groups = [group(healthy, 10), group(self.standby, 10)];
            self.trusts.update(&self.rule, &all(&groups), self.now)
        }

        /// The share of the active group in per cent.
        fn active(&mut self, healthy: u32) -> u32 {
            let shares = self.update(healthy);
            percent(&shares.parts, 2)[0]
        }

        fn active_after(&mut self, seconds: u64, healthy: u32) -> u32 {
            self.now += seconds * SECOND;
            self.active(healthy)
        }
    }

    #[test]
    fn calls_leave_at_once_and_come_back_slowly() {
        let mut bench = Bench::new();
        assert_eq!(bench.active_after(1, 0), 0);
        assert_eq!(bench.active_after(3_600, 10), 0);
        assert_eq!(bench.active_after(9, 10), 0, "held");
        assert_eq!(bench.active_after(1, 10), 0, "the ramp begins");
        assert_eq!(bench.active_after(3, 10), 10);
        assert_eq!(bench.active_after(12, 10), 50);
        assert_eq!(bench.active_after(15, 10), 100);
        assert_eq!(bench.update(10).again, None);
    }

    #[test]
    fn a_group_that_comes_and_goes_stays_where_it_was_at_its_worst() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            assert_eq!(bench.active_after(5, 5), 70);
            assert_eq!(bench.active_after(5, 10), 70);
        }
    }

    #[test]
    fn a_fall_during_the_ramp_begins_it_anew() {
        let mut bench = Bench::new();
        assert_eq!(bench.active_after(1, 0), 0);
        assert_eq!(bench.active_after(1, 10), 0);
        assert_eq!(bench.active_after(25, 10), 50);
        assert_eq!(bench.active_after(1, 2), 28);
        assert_eq!(bench.active_after(1, 10), 28);
        assert_eq!(bench.active_after(10, 10), 28);
        assert_eq!(bench.active_after(3, 10), 38);
    }

    #[test]
    fn a_fall_that_leaves_more_than_it_gets_does_not_stop_the_ramp() {
        let mut bench = Bench::new();
        assert_eq!(bench.active_after(1, 0), 0);
        assert_eq!(bench.active_after(1, 10), 0);
        assert_eq!(bench.active_after(13, 5), 10);
        assert_eq!(bench.active_after(3, 10), 20);
    }

    #[test]
    fn a_group_comes_back_at_once_if_no_other_can_take_the_calls() {
        let mut bench = Bench::new();
        assert_eq!(bench.active_after(1, 0), 0);
        bench.standby = 0;
        assert_eq!(bench.active_after(1, 10), 100);
        let mut bench = Bench::new();
        assert_eq!(bench.active_after(1, 0), 0);
        bench.standby = 0;
        assert_eq!(bench.active_after(1, 0), 0, "all are down, and stay there");
        bench.standby = 5;
        assert_eq!(bench.active_after(1, 0), 0, "standby is back first");
        assert_eq!(
            bench.active_after(1, 10),
            30,
            "as much as standby cannot take"
        );
    }

    #[test]
    fn says_when_the_shares_change_by_time_alone() {
        let mut bench = Bench::new();
        bench.now += SECOND;
        assert_eq!(bench.update(0).again, None);
        bench.now += SECOND;
        let better = bench.now;
        let mut looks = 0;
        while let Some(again) = bench.update(10).again {
            assert!(again > bench.now);
            bench.now = again;
            looks += 1;
        }
        assert_eq!(bench.active(10), 100);
        assert_eq!(looks, STEPS);
        assert_eq!(bench.now, better + 40 * SECOND);
    }

    #[test]
    fn without_hold_and_ramp_the_shares_follow_health() {
        let mut bench = Bench::new();
        bench.rule.failback_delay = Duration::ZERO;
        bench.rule.failback_ramp = Duration::ZERO;
        for (healthy, share) in [(0, 0), (10, 100), (5, 70), (10, 100)] {
            assert_eq!(bench.active(healthy), share);
        }
    }

    #[test]
    fn without_a_ramp_a_group_is_held_all_the_same() {
        let mut bench = Bench::new();
        bench.rule.failback_ramp = Duration::ZERO;
        assert_eq!(bench.active_after(1, 0), 0);
        assert_eq!(bench.active_after(1, 10), 0);
        assert_eq!(bench.active_after(9, 10), 0);
        assert_eq!(bench.active_after(1, 10), 100);
    }

    #[test]
    fn a_group_that_is_new_is_trusted_at_once_and_one_that_returns_slowly() {
        let mut trusts = Capacities::default();
        let mut shares = |groups: &[Group], second| {
            let shares = trusts.update(&Rule::default(), &all(groups), second * SECOND);
            percent(&shares.parts, 2)
        };
        let (none, half, full) = (group(0, 0), group(1, 2), group(2, 2));
        assert_eq!(shares(&[none, full], 0), [0, 100]);
        assert_eq!(
            shares(&[full, full], 1),
            [100, 0],
            "the list was not whole yet"
        );
        assert_eq!(shares(&[half], 2), [100, 0], "nobody else is there");
        assert_eq!(
            shares(&[full, full], 3),
            [100, 0],
            "nothing to come back from"
        );
        assert_eq!(shares(&[half, full], 4), [70, 30]);
        assert_eq!(shares(&[none, full], 5), [0, 100]);
        assert_eq!(shares(&[full, full], 6), [0, 100]);
        assert_eq!(shares(&[full, full], 19), [10, 90]);
        assert_eq!(shares(&[], 20), [0, 0]);
        let mut trusts = Capacities::default();
        let mut shares = |groups: &[Group], second| {
            let shares = trusts.update(&Rule::default(), &all(groups), second * SECOND);
            percent(&shares.parts, 2)
        };
        assert_eq!(shares(&[full], 0), [100, 0]);
        assert_eq!(shares(&[half], 1), [100, 0]);
        assert_eq!(shares(&[full, full], 60), [100, 0], "it was never relieved");
    }

    #[test]
    fn groups_that_cannot_take_everything_do_not_suffice() {
        let suffice = |groups: &[Group]| {
            let mut trusts = Capacities::default();
            trusts.update(&Rule::default(), &all(groups), 0).suffice
        };
        assert!(suffice(&[group(3, 4)]));
        assert!(!suffice(&[group(2, 3)]));
        assert!(suffice(&[group(1, 3), group(1, 2)]));
        assert!(!suffice(&[group(1, 3), group(1, 3)]));
        assert!(!suffice(&[]));
    }

    #[test]
    fn a_group_is_chosen_by_its_share() {
        let split = Split::new();
        let set = |shares: &[f64]| {
            let mut all = [0.0; PRIORITIES];
            all[..shares.len()].copy_from_slice(shares);
            split.set(&all, 0, 0);
        };
        let edges = [0, 1, u32::MAX / 2, u32::MAX - 1, u32::MAX];
        let chosen = || edges.map(|random| split.choose(random));
        assert_eq!(chosen(), [0; 5]);
        set(&[0.0, 1.0, 0.0]);
        assert_eq!(chosen(), [1; 5]);
        set(&[0.0, 0.0, 1.0]);
        assert_eq!(chosen(), [2; 5]);
        set(&[0.25, 0.5, 0.25]);
        assert_eq!(chosen(), [0, 0, 1, 2, 2]);
        set(&[0.999_999, 0.0, 0.000_001]);
        assert_eq!(chosen()[..4], [0; 4], "too little to matter");
        set(&[0.0]);
        assert_eq!(chosen(), [0; 5]);
        set(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(chosen(), [7; 5]);
    }

    #[test]
    fn one_of_those_who_come_when_it_is_time_looks_at_the_groups() {
        let split = Split::new();
        let mut only_first = [0.0; PRIORITIES];
        only_first[0] = 1.0;
        let until = 2 * MIN_LOOK;
        split.set(&only_first, 5, until);
        assert_eq!(
            [until - 1, until, until].map(|now| split.is_due(now)),
            [false, true, false]
        );
        split.look_next();
        assert_eq!(
            [until, until].map(|now| split.is_due(now)),
            [true, false],
            "the look is not put off"
        );
        split.set(&only_first, 5, 6);
        assert!(!split.is_due(4 + MIN_LOOK), "at the earliest");
        split.set(&only_first, 5, u64::MAX);
        assert!(
            !split.is_due(4 + LOOK) && split.is_due(5 + LOOK),
            "at the latest"
        );
    }

    proptest! {
        /// In each sequence of events: all calls go to a group, no group gets more than it can take while others have
        /// spare capacity, no share rises faster than the ramp without need, and in the end the shares return to their
        /// first values.
        #[test]
        fn shares_add_up_and_settle(
            groups in 1_usize..5,
            steps in prop::collection::vec((0_u64..20, prop::collection::vec((0_u32..=10, 0_u32..=10), 5)), 1..30),
        ) {
            let rule = Rule::default();
            let mut trusts = Capacities::default();
            let mut now = 0;
            let mut last = Groups::default();
            let mut before = [1.0; PRIORITIES];
            for (seconds, healths) in steps {
                now += seconds * SECOND;
                let seen: Vec<_> = healths[..groups].iter().map(|&(a, b)| group(a.min(b), a.max(b))).collect();
                last = all(&seen);
                let present = last.iter().filter(|group| !group.is_empty()).count();
                let fresh = trusts.groups.iter().zip(&last).any(|(trust, group)| !trust.is_known && !group.is_empty());
                let updated = trusts.update(&rule, &last, now);
                let shares = updated.parts;
                let sum: f64 = shares.iter().sum();
                prop_assert!(if present == 0 { sum == 0.0 } else { (sum - 1.0).abs() < 1e-6 }, "{:?}", shares);
                let capacities = last.map(|group| rule.capacity(group));
                let total: f64 = capacities.iter().sum();
                let trusted = trusts.groups.map(|trust| trust.trusted);
                for place in 0..PRIORITIES {
                    prop_assert!(trusted[place] <= capacities[place] + 1e-9 || present == 1);
                    if total >= 1.0 {
                        prop_assert!(shares[place] <= capacities[place] + 1e-9);
                    }
                }
                let risen: f64 = trusted.iter().zip(&before).map(|(new, old): (&f64, &f64)| (new - old).max(0.0)).sum();
                let allowed = seconds as f64 / 30.0 * groups as f64;
                prop_assert!(risen <= allowed + 1e-6 || trusted.iter().sum::<f64>() <= 1.0 + 1e-6 || fresh);
                prop_assert!(trusted.iter().sum::<f64>() >= total.min(1.0) - 1e-6);
                before = trusted;
                let split = Split::new();
                split.set(&shares, now, u64::MAX);
                for random in [0, 1, 1 << 30, u32::MAX] {
                    prop_assert!(present == 0 || shares[split.choose(random)] > 0.0);
                }
            }
            for _ in 0..2 {
                now += 40 * SECOND;
                let _ = trusts.update(&rule, &last, now);
            }
            let settled = trusts.update(&rule, &last, now);
            prop_assert_eq!(settled.again, None);
            if last.iter().all(|group| rule.capacity(*group) == 0.0) {
                return Ok(());
            }
            let fresh = Capacities::default().update(&rule, &last, 0).parts;
            for (ours, fresh) in settled.parts.iter().zip(fresh) {
                prop_assert!((ours - fresh).abs() < 1e-6);
            }
        }

        #[test]
        fn choices_follow_the_shares(parts in prop::collection::vec(0_u32..10, 1..=PRIORITIES), seed in any::<u32>()) {
            let sum: u32 = parts.iter().sum();
            prop_assume!(sum > 0);
            let mut shares = [0.0; PRIORITIES];
            for (share, part) in shares.iter_mut().zip(&parts) {
                *share = f64::from(*part) / f64::from(sum);
            }
            let split = Split::new();
            split.set(&shares, 0, 0);
            let mut chosen = [0.0; PRIORITIES];
            // Evenly distributed, whatever it starts with.
            for step in 0..1_000_u32 {
                chosen[split.choose(seed.wrapping_add(step.wrapping_mul(2_654_435_769)))] += 1e-3;
            }
            for (chosen, share) in chosen.iter().zip(shares) {
                prop_assert!((chosen - share).abs() < 0.01);
            }
        }
    }
}
