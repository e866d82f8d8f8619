//! Priority groups: which share of the calls goes to the primary endpoints, to the standby, to a far region.
//!
//! Plain code: times are nanoseconds from the origin of the balancer, and randomness is an argument. [`Failover`]
//! belongs to whoever looks at the health of the groups; [`Split`] is what calls read.
//!
//! # How it works
//!
//! **Spilling over.** A group can take `min(1, 1.4 · healthy share)` of the calls: one that has lost two of seven
//! endpoints still takes all, because the others have that much to spare (Envoy's overprovisioning factor). The
//! first group gets what it can take, the next one what is left, and so on. If all together cannot take everything,
//! each gets its part of it. If no endpoint is healthy, the first group that has any gets all: that is where the
//! calls belong, and the health may be what is wrong.
//!
//! **Coming back.** What a group is trusted to take falls at once and rises slowly: not until it could have taken
//! more for the whole of `hold`, so that a group whose endpoints come and go does not pull calls to and fro, then
//! from nothing to everything in `ramp`, so that it is not overrun with cold caches. But it rises at once as far as
//! the other groups cannot take the calls.
//!
//! | setting | default | reason |
//! |---|---|---|
//! | `factor` | 1.4 | as in Envoy: a group that has lost more than 28 % of its endpoints is not pushed to its limit |
//! | `hold` | 10 s | an endpoint that is ejected or fails its health check does so again within that time, or not soon |
//! | `ramp` | 30 s | with 10 s of slow start for each endpoint within it, nothing gets its full share at once |

use std::time::Duration;

use crate::ConfigError;
use crate::error::Check;
use crate::sync::{AtomicU32, Ordering};

const FACTOR: f64 = 1.4;
const HOLD: Duration = Duration::from_secs(10);
const RAMP: Duration = Duration::from_secs(30);
/// In how many steps a ramp is climbed.
const STEPS: u64 = 50;
/// Below this, two shares are the same.
const NEGLIGIBLE: f64 = 1e-9;

/// How calls move from one priority group to the next, and back.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a failover is part of the configuration of a balancer"]
pub struct FailoverPolicy {
    factor: f64,
    hold: Duration,
    ramp: Duration,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        Self {
            factor: FACTOR,
            hold: HOLD,
            ramp: RAMP,
        }
    }
}

impl FailoverPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much more than its share an endpoint can take; 1 to 10. 1.4 by default.
    ///
    /// A group takes all calls until its healthy share is below 1 divided by this.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// How long a group must have been better before it gets more calls. 10 s by default; zero switches this off.
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// How long it takes from no calls to all calls when a group comes back. 30 s by default; zero switches this
    /// off.
    pub fn ramp(mut self, ramp: Duration) -> Self {
        self.ramp = ramp;
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let is_factor = (1.0..=10.0).contains(&self.factor);
        check.that(is_factor, "factor", &self.factor, "1 to 10")?;
        for (field, time) in [("hold", self.hold), ("ramp", self.ramp)] {
            if !time.is_zero() {
                check.duration(field, time)?;
            }
        }
        Ok(())
    }

    /// What a group can take.
    fn capacity(&self, group: Group) -> f64 {
        if group.whole <= 0.0 {
            return 0.0;
        }
        (self.factor * group.healthy / group.whole).clamp(0.0, 1.0)
    }
}

/// The endpoints of one priority, by their number or their weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    /// Those that calls may be sent to.
    pub(super) healthy: f64,
    /// All.
    pub(super) whole: f64,
}

/// What each group is trusted to take.
#[derive(Debug, Default)]
pub(super) struct Failover {
    groups: Vec<Trust>,
    /// When it was last looked at.
    at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trust {
    capacity: f64,
    /// Since when it could take more than that.
    better_since: Option<u64>,
}

/// The share of each group, and when to look again.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub(super) struct Shares {
    /// They add up to 1, unless no group has an endpoint.
    pub(super) shares: Vec<f64>,
    /// When the shares change although the health of no endpoint does; `None` if they stay.
    pub(super) again: Option<u64>,
}

impl Failover {
    /// Takes in the health of the groups, the first priority first.
    pub(super) fn update(&mut self, policy: &FailoverPolicy, groups: &[Group], now: u64) -> Shares {
        let capacities: Vec<_> = groups.iter().map(|group| policy.capacity(*group)).collect();
        self.groups.truncate(groups.len());
        let known = self.groups.len();
        for (trust, &capacity) in self.groups.iter_mut().zip(&capacities) {
            trust.follow(policy, capacity, self.at, now);
        }
        let new = capacities[known..].iter().map(|&capacity| Trust {
            capacity,
            better_since: None,
        });
        self.groups.extend(new);
        self.at = self.at.max(now);
        self.fill(&capacities);
        let trusted: Vec<_> = self.groups.iter().map(|trust| trust.capacity).collect();
        Shares {
            shares: shares(&trusted, groups),
            again: self.again(policy, &capacities, now),
        }
    }

    /// Trusts groups at once as far as the others cannot take the calls.
    fn fill(&mut self, capacities: &[f64]) {
        let trusted: f64 = self.groups.iter().map(|trust| trust.capacity).sum();
        let mut missing = 1.0 - trusted;
        for (trust, capacity) in self.groups.iter_mut().zip(capacities) {
            let rise = (capacity - trust.capacity).min(missing).max(0.0);
            trust.capacity += rise;
            missing -= rise;
        }
    }

    fn again(&self, policy: &FailoverPolicy, capacities: &[f64], now: u64) -> Option<u64> {
        let step = (nanos(policy.ramp) / STEPS).max(1);
        let rising = self.groups.iter().zip(capacities);
        rising
            .filter(|(trust, capacity)| trust.capacity + NEGLIGIBLE < **capacity)
            .map(|(trust, _)| trust.held_until(policy, now).max(now).saturating_add(step))
            .min()
    }
}

impl Trust {
    fn follow(&mut self, policy: &FailoverPolicy, capacity: f64, before: u64, now: u64) {
        if capacity <= self.capacity + NEGLIGIBLE {
            self.capacity = capacity;
            self.better_since = None;
            return;
        }
        self.better_since.get_or_insert(now);
        let held_until = self.held_until(policy, now);
        if now < held_until {
            return;
        }
        let climbed = now.saturating_sub(held_until.max(before)) as f64;
        let risen = match nanos(policy.ramp) {
            0 => capacity,
            ramp => self.capacity + climbed / ramp as f64,
        };
        self.capacity = risen.min(capacity);
    }

    /// Until when it does not rise.
    fn held_until(&self, policy: &FailoverPolicy, now: u64) -> u64 {
        let since = self.better_since.unwrap_or(now);
        since.saturating_add(nanos(policy.hold))
    }
}

/// Gives each group what it can take of what those before it left over.
fn shares(capacities: &[f64], groups: &[Group]) -> Vec<f64> {
    let total = capacities.iter().sum::<f64>().min(1.0);
    if total <= 0.0 {
        let first = groups.iter().position(|group| group.whole > 0.0);
        let places = 0..groups.len();
        return places
            .map(|place| f64::from(u8::from(Some(place) == first)))
            .collect();
    }
    let mut left = 1.0;
    let share = |capacity: &f64| {
        let share = (capacity / total).min(left);
        left -= share;
        share
    };
    capacities.iter().map(share).collect()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How calls are divided among groups: read by each call, without a lock.
///
/// A call that reads it while it is written may see a part of either division, and goes to one of their groups.
#[derive(Debug)]
pub(super) struct Split {
    /// Where the part of each group ends, out of [`WHOLE`].
    ends: Box<[AtomicU32]>,
}

const WHOLE: u32 = 1 << 31;

impl Split {
    /// All calls go to the first group.
    pub(super) fn new(groups: usize) -> Self {
        Self {
            ends: (0..groups).map(|_| AtomicU32::new(WHOLE)).collect(),
        }
    }

    pub(super) fn set(&self, shares: &[f64]) {
        let mut sum = 0.0;
        // What the rounding of the shares leaves over belongs to the last group that gets any.
        let last = shares.iter().rposition(|share| *share > NEGLIGIBLE);
        for (place, (end, share)) in self.ends.iter().zip(shares).enumerate() {
            sum += share;
            let is_whole = last.is_some_and(|last| place >= last);
            let part = (sum * f64::from(WHOLE)).round() as u32;
            end.store(
                if is_whole { WHOLE } else { part.min(WHOLE) },
                Ordering::Relaxed,
            );
        }
    }

    /// The group for a call, by 32 random bits.
    #[inline]
    pub(super) fn choose(&self, random: u32) -> usize {
        let random = random >> 1;
        let mut ends = self.ends.iter();
        let place = ends.position(|end| random < end.load(Ordering::Relaxed));
        place.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn group(healthy: u32, whole: u32) -> Group {
        Group {
            healthy: healthy.into(),
            whole: whole.into(),
        }
    }

    fn percent(shares: &[f64]) -> Vec<u32> {
        shares
            .iter()
            .map(|share| (100.0 * share).round() as u32)
            .collect()
    }

    /// The shares of groups that are seen for the first time.
    fn fresh(groups: &[Group]) -> Vec<u32> {
        let shares = Failover::default().update(&FailoverPolicy::new(), groups, 0);
        assert_eq!(shares.again, None);
        percent(&shares.shares)
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
        failover: Failover,
        policy: FailoverPolicy,
        now: u64,
        standby: u32,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                failover: Failover::default(),
                policy: FailoverPolicy::new(),
                now: SECOND,
                standby: 10,
            };
            assert_eq!(bench.active(10), 100);
            bench
        }

        fn update(&mut self, healthy: u32) -> Shares {
            let groups = [group(healthy, 10), group(self.standby, 10)];
            self.failover.update(&self.policy, &groups, self.now)
        }

        /// The share of the active group in per cent.
        fn active(&mut self, healthy: u32) -> u32 {
            let shares = self.update(healthy);
            percent(&shares.shares)[0]
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
        assert_eq!(bench.active_after(1, 0), 100, "all are down");
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
        bench.policy = FailoverPolicy::new()
            .hold(Duration::ZERO)
            .ramp(Duration::ZERO);
        for (healthy, share) in [(0, 0), (10, 100), (5, 70), (10, 100)] {
            assert_eq!(bench.active(healthy), share);
        }
    }

    #[test]
    fn groups_that_come_and_go_are_followed_at_once() {
        let mut failover = Failover::default();
        let policy = FailoverPolicy::new();
        let mut shares = |groups: &[Group]| percent(&failover.update(&policy, groups, 0).shares);
        assert_eq!(shares(&[group(1, 2)]), [100]);
        assert_eq!(shares(&[group(1, 2), group(2, 2)]), [70, 30]);
        assert_eq!(shares(&[group(0, 2), group(2, 2)]), [0, 100]);
        assert_eq!(shares(&[]), [0; 0]);
    }

    #[test]
    fn a_group_is_chosen_by_its_share() {
        let split = Split::new(3);
        let edges = [0, 1, u32::MAX / 2, u32::MAX - 1, u32::MAX];
        assert_eq!(edges.map(|random| split.choose(random)), [0; 5]);
        split.set(&[0.0, 1.0, 0.0]);
        assert_eq!(edges.map(|random| split.choose(random)), [1; 5]);
        split.set(&[0.0, 0.0, 1.0]);
        assert_eq!(edges.map(|random| split.choose(random)), [2; 5]);
        split.set(&[0.25, 0.5, 0.25]);
        assert_eq!(edges.map(|random| split.choose(random)), [0, 0, 1, 2, 2]);
        split.set(&[0.0, 0.0, 0.0]);
        assert_eq!(edges.map(|random| split.choose(random)), [0; 5]);
        assert_eq!(Split::new(0).choose(7), 0);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let new = FailoverPolicy::new;
        let refused = [
            (new().factor(0.99), "factor"),
            (new().factor(f64::NAN), "factor"),
            (new().factor(f64::INFINITY), "factor"),
            (new().hold(Duration::MAX), "hold"),
            (new().ramp(Duration::MAX), "ramp"),
        ];
        let check = Check {
            layer: "balance",
            name: "search",
        };
        for (policy, field) in refused {
            let error = policy.check(check).expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
        assert_eq!(
            new().hold(Duration::ZERO).ramp(Duration::ZERO).check(check),
            Ok(())
        );
    }

    proptest! {
        /// Whatever happens: all calls go somewhere, nobody gets more than it can take while others have room, nobody
        /// rises faster than the ramp without need, and in the end all is as if nothing had happened.
        #[test]
        fn shares_add_up_and_settle(
            groups in 1_usize..5,
            steps in prop::collection::vec((0_u64..20, prop::collection::vec((0_u32..=10, 0_u32..=10), 5)), 1..30),
        ) {
            let policy = FailoverPolicy::new();
            let mut failover = Failover::default();
            let mut now = 0;
            let mut last = Vec::new();
            let mut before = vec![1.0; groups];
            for (seconds, healths) in steps {
                now += seconds * SECOND;
                last = healths[..groups].iter().map(|&(a, b)| group(a.min(b), a.max(b))).collect::<Vec<_>>();
                let shares = failover.update(&policy, &last, now).shares;
                let sum: f64 = shares.iter().sum();
                let is_empty = last.iter().all(|group| group.whole == 0.0);
                prop_assert!(if is_empty { sum == 0.0 } else { (sum - 1.0).abs() < 1e-6 }, "{:?}", shares);
                let capacities: Vec<_> = last.iter().map(|group| policy.capacity(*group)).collect();
                let total: f64 = capacities.iter().sum();
                let trusted: Vec<_> = failover.groups.iter().map(|trust| trust.capacity).collect();
                for place in 0..groups {
                    prop_assert!(trusted[place] <= capacities[place] + 1e-9);
                    if total >= 1.0 {
                        prop_assert!(shares[place] <= capacities[place] + 1e-9);
                    }
                }
                let risen: f64 = trusted.iter().zip(&before).map(|(new, old): (&f64, &f64)| (new - old).max(0.0)).sum();
                let allowed = seconds as f64 / 30.0 * groups as f64;
                prop_assert!(risen <= allowed + 1e-6 || trusted.iter().sum::<f64>() <= 1.0 + 1e-6);
                prop_assert!(trusted.iter().sum::<f64>() >= total.min(1.0) - 1e-6);
                before = trusted;
                let split = Split::new(groups);
                split.set(&shares);
                for random in [0, 1, 1 << 30, u32::MAX] {
                    prop_assert!(is_empty || shares[split.choose(random)] > 0.0);
                }
            }
            now += 40 * SECOND;
            drop(failover.update(&policy, &last, now));
            now += 40 * SECOND;
            let settled = failover.update(&policy, &last, now);
            prop_assert_eq!(settled.again, None);
            let fresh = Failover::default().update(&policy, &last, 0).shares;
            for (ours, fresh) in settled.shares.iter().zip(fresh) {
                prop_assert!((ours - fresh).abs() < 1e-6);
            }
        }

        #[test]
        fn choices_follow_the_shares(parts in prop::collection::vec(0_u32..10, 1..5), seed in any::<u32>()) {
            let sum: u32 = parts.iter().sum();
            prop_assume!(sum > 0);
            let shares: Vec<_> = parts.iter().map(|&part| f64::from(part) / f64::from(sum)).collect();
            let split = Split::new(parts.len());
            split.set(&shares);
            let mut chosen = vec![0.0; parts.len()];
            // Evenly distributed, whatever it starts with.
            for step in 0..1_000_u32 {
                chosen[split.choose(seed.wrapping_add(step.wrapping_mul(2_654_435_769)))] += 1e-3;
            }
            for (chosen, share) in chosen.iter().zip(&shares) {
                prop_assert!((chosen - share).abs() < 0.01);
            }
        }
    }
}
