//! Allowance of hedges that the calls pay for.

/// Hedges that can be sent at once, as a share of the hedges that the calls of the last tick pay for.
///
/// Slow calls come in groups, and the groups are larger at higher rates.
const BURST_SHARE: f64 = 0.2;

/// A bucket of hedges: each call adds a share of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    share: f64,
    /// Number of hedges that the bucket can always hold.
    burst: f64,
    hedges: f64,
    /// The number of calls that have added their share.
    calls: u64,
}

impl Quota {
    pub(crate) fn new(share: f64, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self {
            share,
            burst,
            hedges: burst,
            calls: 0,
        }
    }

    /// Takes a hedge, after `calls` calls in total and `recent` calls in the last tick. Returns `false` if there is
    /// none.
    ///
    /// The shares of calls are added only here. No hedge is taken in between, so the bucket overflows as if each call
    /// had added its share.
    pub(crate) fn take(&mut self, calls: u64, recent: u64) -> bool {
        let new = calls.saturating_sub(self.calls);
        self.calls = self.calls.max(calls);
        let capacity = self.burst.max(BURST_SHARE * self.share * recent as f64);
        self.hedges = (self.hedges + self.share * new as f64).min(capacity);
        let allowed = self.hedges >= 1.0;
        if allowed {
            self.hedges -= 1.0;
        }
        allowed
    }

    /// Puts back a hedge that was taken and not sent.
    pub(crate) fn put_back(&mut self) {
        self.hedges += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_there_from_the_start_and_a_twentieth_of_the_calls_after_it() {
        let mut quota = Quota::new(0.05, 10);
        assert_eq!((0..20).filter(|_| quota.take(0, 0)).count(), 10);
        let hedges = (1..=10_000).filter(|&calls| quota.take(calls, 0)).count();
        assert_eq!(hedges, 500);
    }

    #[test]
    fn calls_fill_no_more_than_a_burst() {
        let mut quota = Quota::new(0.05, 10);
        assert!(quota.take(u64::MAX, 0));
        assert_eq!((0..20).filter(|_| quota.take(u64::MAX, 0)).count(), 9);
        quota.put_back();
        assert!(quota.take(0, 0), "also if calls seem to go back");
        assert!(!quota.take(u64::MAX, 0));
    }

    #[test]
    fn the_burst_grows_with_the_calls_of_a_second() {
        let mut quota = Quota::new(0.05, 10);
        let hedges = |quota: &mut Quota, calls, recent| {
            (0..200).filter(|_| quota.take(calls, recent)).count()
        };
        assert_eq!(hedges(&mut quota, 10_000, 10_000), 100);
        assert_eq!(hedges(&mut quota, 20_000, 900), 10);
    }

    proptest! {
        #[test]
        fn no_span_of_calls_has_more_hedges_than_its_share_and_a_burst(
            share in 0.01_f64..1.0,
            burst in 1_u32..20,
            wants in prop::collection::vec(any::<bool>(), 1..500),
        ) {
            let mut quota = Quota::new(share, burst);
            let taken: Vec<bool> = wants
                .iter()
                .zip(0..)
                .map(|(&wants, calls)| wants && quota.take(calls, 0))
                .collect();
            for from in 0..taken.len() {
                let mut hedges = 0;
                for (span, &taken) in taken[from..].iter().enumerate() {
                    hedges += u32::from(taken);
                    let most = share * span as f64 + f64::from(burst) + 1e-6;
                    prop_assert!(f64::from(hedges) <= most);
                }
            }
        }
    }
}
