//! The script: the faults of `payments`, and the arrivals of the customers.

use std::time::Duration;

/// Orders that arrive in a second, at each of the two shops.
///
/// Together with the patience of the customers this bounds the connections that are open at once,
/// so that the usual limit of 1024 open files is enough.
const ORDERS_PER_SECOND: f64 = 200.0;

/// Workers of a server.
const WORKERS: usize = 24;
/// Shortest and longest time of a worker for a request if nothing is wrong.
const WORK: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40)];

/// Agreement between a server and a shop. The bare shop does not know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contract {
    /// Requests in a second. More are answered 429.
    pub(crate) per_second: u32,
    /// Requests at once. More are not refused: they have to queue.
    pub(crate) at_once: usize,
}

pub(crate) const STOCK: Contract = Contract {
    per_second: 1000,
    at_once: 50,
};
pub(crate) const PAYMENTS: Contract = Contract {
    per_second: 300,
    at_once: 12,
};

/// Health of `payments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Answers after 10 to 40 ms of work.
    Healthy,
    /// Some requests take long.
    Slow,
    /// Some requests are answered 503.
    Flaky,
    /// As healthy as ever, but the customers come in crowds.
    Crowded,
    /// Most of the workers are gone.
    Overloaded,
    /// Some payments are made, but the answer never comes.
    Hanging,
    /// Nobody listens, and the open connections are gone.
    Refused,
    /// Every request waits for a database that does not answer, and is then answered 503.
    Outage,
}

impl Health {
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
            Self::Healthy | Self::Crowded | Self::Overloaded | Self::Refused => None,
            Self::Flaky => Some(5),
            Self::Slow => Some(60),
            Self::Hanging => Some(10),
            Self::Outage => Some(1),
        }
    }

    /// Returns the average time of a worker for a request that is hit, if it is not the usual time.
    pub(crate) fn stuck_for(self) -> Duration {
        match self {
            Self::Slow => Duration::from_millis(800),
            Self::Outage => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    /// Returns the number of workers.
    pub(crate) fn workers(self) -> usize {
        match self {
            Self::Overloaded => 2,
            _ => WORKERS,
        }
    }

    /// The requests that they manage in a second.
    pub(crate) fn capacity(self) -> f64 {
        let [least, most] = WORK;
        self.workers() as f64 / ((least + most) / 2).as_secs_f64()
    }

    /// Returns the time of a worker for a request that is not hit.
    pub(crate) fn work(luck: f64) -> Duration {
        let [least, most] = WORK;
        least + most.saturating_sub(least).mul_f64(luck)
    }

    /// All customers that come within this time come at its beginning.
    fn crowd(self) -> Option<Duration> {
        (self == Self::Crowded).then_some(Duration::from_millis(400))
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

impl Phase {
    pub(crate) fn length(&self) -> Duration {
        self.ends.saturating_sub(self.starts)
    }
}

/// The play as a whole.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) phases: Vec<Phase>,
    /// Time for which a customer waits for an answer before leaving. Without it no order would ever end
    /// at the bare shop.
    pub(crate) patience: Duration,
}

impl Script {
    /// The quick play is the same, only shorter. So is the patience in it: who comes at the
    /// beginning of the outage must not be able to sit it out.
    pub(crate) fn new(quick: bool) -> Self {
        // Title, health, and the length in milliseconds: in full and quick.
        let parts = [
            ("healthy", Health::Healthy, 2000, 600),
            ("slow", Health::Slow, 3000, 800),
            ("failing", Health::Flaky, 2500, 500),
            ("called by crowds", Health::Crowded, 2000, 500),
            ("overloaded", Health::Overloaded, 4000, 1500),
            ("hanging", Health::Hanging, 2500, 500),
            ("refusing connections", Health::Refused, 2000, 200),
            ("stuck altogether", Health::Outage, 2500, 500),
            ("healthy again", Health::Healthy, 2500, 1000),
        ];
        let mut starts = Duration::ZERO;
        let mut phases = Vec::with_capacity(parts.len());
        for (title, health, full, short) in parts {
            let ends = starts + Duration::from_millis(if quick { short } else { full });
            let title = match health.one_in() {
                Some(share) if share > 1 => format!("{title}, 1 call in {share}"),
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
            patience: Duration::from_millis(if quick { 450 } else { 1000 }),
        }
    }

    /// The first part in which `payments` is in such a state.
    pub(crate) fn first(&self, health: Health) -> Option<(usize, &Phase)> {
        let mut phases = self.phases.iter().enumerate();
        phases.find(|(_, phase)| phase.health == health)
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
                comes: self.gathered(comes),
                patience: self.patience,
            });
        }
        customers
    }

    /// Moves the arrival of a customer into a crowd.
    fn gathered(&self, comes: Duration) -> Duration {
        let mut phases = self.phases.iter();
        let phase = phases.find(|phase| comes < phase.ends);
        let crowd = phase.and_then(|phase| Some((phase.starts, phase.health.crowd()?)));
        crowd.map_or(comes, |(starts, every)| {
            let crowds = comes.saturating_sub(starts).as_nanos() / every.as_nanos();
            starts + every * crowds as u32
        })
    }
}

/// Someone who wants to place an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Customer {
    pub(crate) order: u64,
    /// Since the start of the play.
    pub(crate) comes: Duration,
    /// Time for which they wait for an answer before they leave.
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
