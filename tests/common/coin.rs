//! Admission by a coin: a part that is written with [`buttress::part`] alone.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use buttress::Error;
use buttress::part::{Admit, At, Part, PartFor, Record};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Admits a share of the calls, drawn at random, and counts those in flight.
#[derive(Debug)]
pub(crate) struct Coin {
    name: &'static str,
    share: f64,
    random: Mutex<SmallRng>,
    in_flight: AtomicU32,
}

impl Coin {
    /// Makes a coin that admits `share` of the calls, from 0 to 1.
    pub(crate) fn new(name: &'static str, share: f64, seed: u64) -> Self {
        assert!((0.0..=1.0).contains(&share), "share is {share}");
        Self {
            name,
            share,
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            in_flight: AtomicU32::new(0),
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }
}

impl Part for Coin {
    type Ask = ();
    type Permit = bool;

    fn admit(&self, (): (), permit: &mut bool, _: &At) -> Admit {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if !random.random_bool(self.share) {
            return Admit::Refuse(Error::refused(self.name, None));
        }
        *permit = true;
        self.in_flight.fetch_add(1, Relaxed);
        Admit::Go
    }

    fn settle(&self, permit: &mut bool, _: &Record<'_>) {
        self.in_flight.fetch_sub(mem::take(permit).into(), Relaxed);
    }
}

impl<Req> PartFor<Req> for Coin {
    fn ask(&self, _: &Req) {}
}
