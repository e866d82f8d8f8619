//! The play: what `payments` goes through, and when the customers come.

use std::time::Duration;

/// Orders that arrive in a second, at each of the two shops.
///
/// Together with the patience of the customers this bounds the connections that are open at once,
/// so that the usual limit of 1024 open files is enough.
const ORDERS_PER_SECOND: f64 = 200.0;

/// How `payments` is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Answers after 20 to 80 ms of work.
    Healthy,
    /// Some requests are answered 503.
    Flaky,
    /// Some requests take long.
    Slow,
    /// Some payments are made, but the answer never comes.
    Hanging,
    /// Nobody listens, and the open connections are gone.
    Refused,
    /// Every request waits for a database that does not answer, and is then answered 503.
    Outage,
}

impl Health {
    pub(crate) fn is_faulty(self) -> bool {
        self != Self::Healthy
    }

    /// Some payments are made as usual.
    pub(crate) fn is_partly_faulty(self) -> bool {
        matches!(self, Self::Flaky | Self::Slow | Self::Hanging)
    }

    /// No payment is made.
    pub(crate) fn is_gone(self) -> bool {
        matches!(self, Self::Refused | Self::Outage)
    }

    /// One request in this many is hit.
    pub(crate) fn one_in(self) -> Option<u64> {
        match self {
            Self::Healthy | Self::Refused => None,
            Self::Flaky => Some(5),
            Self::Slow => Some(30),
            Self::Hanging => Some(10),
            Self::Outage => Some(1),
        }
    }

    /// How long a worker is busy with a request that is hit, on average, if not the usual time.
    pub(crate) fn stuck_for(self) -> Duration {
        match self {
            Self::Slow => Duration::from_millis(800),
            Self::Outage => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }
}

/// A part of the play.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) title: String,
    pub(crate) health: Health,
    pub(crate) starts: Duration,
    pub(crate) ends: Duration,
}

/// The play as a whole.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) phases: Vec<Phase>,
    /// How long a customer waits for an answer before leaving. Without it nothing would ever end at
    /// the bare shop.
    pub(crate) patience: Duration,
}

impl Script {
    /// The quick play is the same, only shorter. So is the patience in it: who comes at the
    /// beginning of the outage must not be able to sit it out.
    pub(crate) fn new(quick: bool) -> Self {
        // Title, health, and the length in milliseconds: in full and quick.
        let parts = [
            ("healthy", Health::Healthy, 2000, 200),
            ("random 503s", Health::Flaky, 3000, 900),
            ("slow answers", Health::Slow, 3000, 400),
            ("hanging", Health::Hanging, 3500, 700),
            ("connection refused", Health::Refused, 2500, 300),
            ("total outage", Health::Outage, 3000, 800),
            ("recovery", Health::Healthy, 3000, 900),
        ];
        let mut starts = Duration::ZERO;
        let mut phases = Vec::with_capacity(parts.len());
        for (title, health, full, short) in parts {
            let ends = starts + Duration::from_millis(if quick { short } else { full });
            let title = match health.one_in() {
                Some(share) if share > 1 => format!("{title} (1 in {share})"),
                _ => title.to_owned(),
            };
            phases.push(Phase {
                title,
                health,
                starts,
                ends,
            });
            starts = ends;
        }
        Self {
            phases,
            patience: Duration::from_millis(if quick { 600 } else { 1500 }),
        }
    }

    /// All customers. They come independently of each other (a Poisson process) and of how the shop
    /// is doing, so a slow shop gets no relief.
    pub(crate) fn customers(&self, seed: u64) -> Vec<Customer> {
        let end = self.phases.last().map_or(Duration::ZERO, |last| last.ends);
        let mut random = Random::new(seed);
        let mut customers = Vec::new();
        let mut comes = Duration::ZERO;
        for order in 0.. {
            let gap = -(1.0 - random.share()).ln() / ORDERS_PER_SECOND;
            comes += Duration::from_secs_f64(gap);
            if comes >= end {
                break;
            }
            customers.push(Customer {
                order,
                comes,
                patience: self.patience,
            });
        }
        customers
    }
}

/// Someone who wants to place an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Customer {
    pub(crate) order: u64,
    /// Since the start of the play.
    pub(crate) comes: Duration,
    /// How long they wait for an answer before they leave.
    pub(crate) patience: Duration,
}

/// `SplitMix64`: small, and the same on every platform.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
