//! The endpoints of a balancer as they are judged and counted together.

use std::fmt;
use std::sync::{Arc, TryLockError};

use tokio::time::Instant;

use super::endpoint::{Frame, Member};
use super::metrics::BalanceMetrics;
use super::outlier::{EjectionMethod, Interval, OutlierEjection, Seat, is_panic, sweep};
use crate::Mode;
use crate::random::Random;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::telemetry::Series;

/// The endpoints of one balancer.
///
/// Their states change with time alone, so they are counted when that is reported.
pub(super) struct Roster {
    frame: Frame,
    ejection: Option<(OutlierEjection, Interval)>,
    /// Emptied with the balancer: each endpoint refers to this.
    members: Mutex<Vec<Arc<Member>>>,
    /// Until then, less than half of the endpoints are in; `u64::MAX` if time alone does not end that.
    panic_until: AtomicU64,
    pub(super) random: Random,
    metrics: &'static Series<BalanceMetrics>,
}

impl Roster {
    pub(super) fn new(
        frame: Frame,
        ejection: Option<OutlierEjection>,
        random: Random,
        metrics: &'static Series<BalanceMetrics>,
    ) -> Self {
        let now = frame.nanos(Instant::now());
        let ejection = ejection.map(|settings| {
            let interval = Interval::new(&settings, now);
            (settings, interval)
        });
        Self {
            frame,
            ejection,
            members: Mutex::default(),
            panic_until: AtomicU64::new(0),
            random,
            metrics,
        }
    }

    pub(super) fn set(&self, members: &[Arc<Member>], now: u64) {
        let mut kept = lock(&self.members);
        let replaced = std::mem::replace(&mut *kept, members.to_vec());
        self.assess(&kept, now);
        drop(kept);
        drop(replaced);
    }

    /// Says whether so few endpoints are in that calls go to all of them.
    #[inline]
    pub(super) fn is_panic(&self, now: u64) -> bool {
        self.panic_until.load(Ordering::Relaxed) > now
    }

    /// Changes what is known of the health of an endpoint.
    pub(super) fn change(&self, now: u64, change: impl FnOnce()) {
        let members = lock(&self.members);
        change();
        self.assess(&members, now);
        drop(members);
        self.metrics.publish(Instant::now());
    }

    /// Finds out until when there is panic. Called with each change of health; what time brings is foreseen.
    fn assess(&self, members: &[Arc<Member>], now: u64) {
        let mut returns: Vec<_> = members
            .iter()
            .map(|member| member.condition.is_out_until())
            .collect();
        returns.sort_unstable();
        let panic =
            |at: u64| is_panic(returns.partition_point(|until| *until <= at), returns.len());
        let end = if panic(now) {
            let mut later = returns.iter().filter(|until| **until > now);
            *later.find(|until| !panic(**until)).unwrap_or(&u64::MAX)
        } else {
            0
        };
        self.panic_until.store(end, Ordering::Relaxed);
    }

    /// A call to one of the endpoints has succeeded or failed.
    #[inline]
    pub(super) fn note(&self, member: &Member, began: u64, now: u64, failed: bool) {
        let Some((settings, interval)) = &self.ejection else {
            return;
        };
        if member.record.note(settings, began, failed) || interval.is_over(now) {
            self.judge(settings, interval, now);
        }
    }

    /// How many ejections in a row still count against an endpoint.
    pub(super) fn ejections(&self, member: &Member, now: u64) -> u32 {
        let ejection = self.ejection.as_ref();
        ejection.map_or(0, |(settings, _)| {
            member.record.ejections_in_a_row(settings, now)
        })
    }

    /// Ejects those that fail more than the rest. One call does that; the others go on.
    #[cold]
    fn judge(&self, settings: &OutlierEjection, interval: &Interval, now: u64) {
        let members = match self.members.try_lock() {
            Ok(members) => members,
            Err(TryLockError::Poisoned(members)) => members.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let seats: Vec<_> = members
            .iter()
            .map(|member| Seat {
                record: &member.record,
                is_out: member.condition.is_out_until() > now,
            })
            .collect();
        let jitter = || self.random.symmetric();
        let ejected = sweep(settings, interval, &seats, now, jitter);
        if settings.acts() {
            for ejection in &ejected {
                let member = &members[ejection.place];
                member.condition.ejected(ejection.until);
                member.load.forgive();
            }
        }
        self.assess(&members, now);
        drop(seats);
        drop(members);
        // Without the lock: a recorder is code of the user.
        let mode = if settings.acts() {
            Mode::Enforce
        } else {
            Mode::Observe
        };
        let now = Instant::now();
        for ejection in &ejected {
            self.ejected(now, ejection.method, mode);
        }
        if !ejected.is_empty() {
            self.metrics.publish(now);
        }
    }

    fn ejected(&self, now: Instant, method: EjectionMethod, mode: Mode) {
        self.metrics
            .report(now, |metrics| metrics.ejected(method, mode));
    }

    pub(super) fn count<const N: usize>(&self, counts: &mut [u64; N]) {
        let now = self.frame.nanos(Instant::now());
        for member in lock(&self.members).iter() {
            counts[member.state(now) as usize] += 1;
        }
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster")
            .field("endpoints", &lock(&self.members).len())
            .finish_non_exhaustive()
    }
}
