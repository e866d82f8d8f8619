//! Ten endpoints, peak EWMA.

use std::iter::{repeat_n, repeat_with};

use ::tower::buffer::Buffer;

use super::{ROUNDS, unit};
use crate::measure::{Bench, Callee, Tower};
use crate::rivals::{ours, tower};
use crate::row::{Row, Section, fresh, inside, threads_with};
use crate::services::{AtOnce, Scripted};

const ENDPOINTS: usize = 10;

pub(super) fn section() -> Section {
    let service = ours::balance(repeat_n(AtOnce, ENDPOINTS));
    let cloned = move || Tower(service.clone());
    Section {
        title: "Balance, 10 endpoints, peak EWMA",
        note: "`Buffer` is what makes tower's balancer cloneable. It is a task, so those calls are made inside \
               a runtime with one thread. tower chooses between two endpoints, we of three among so few.",
        rounds: ROUNDS,
        rows: vec![
            unit(),
            fresh("buttress", "balance", cloned).shows(|| spreads(ours::balance)),
            fresh("tower", "balance, not cloneable", || Tower(ready()))
                .shows(|| spreads(tower::balance)),
            inside("tower", "buffer and balance", || {
                Tower(Buffer::new(ready(), 1_024))
            }),
        ],
    }
}

/// The same on two threads, where tower's balancer alone cannot go.
pub(super) fn on_threads() -> Row {
    let service = ours::balance(repeat_n(AtOnce, ENDPOINTS));
    threads_with("buttress", "balance, 10 endpoints", move || {
        Tower(service.clone())
    })
}

/// One that has made all endpoints ready, which the first call does.
fn ready() -> tower::Balance<AtOnce> {
    let mut service = Tower(tower::balance(repeat_n(AtOnce, ENDPOINTS)));
    assert_eq!(service.call(1), Some(2));
    service.0
}

/// Panics unless each endpoint gets its share of the calls.
fn spreads<S: Bench>(balance: impl Fn(Vec<Scripted>) -> S) {
    let scripts: Vec<_> = repeat_with(Scripted::default).take(ENDPOINTS).collect();
    let mut service = Tower(balance(scripts.clone()));
    for _ in 0..1_000 {
        assert_eq!(service.call(1), Some(2));
    }
    let calls: Vec<_> = scripts.iter().map(Scripted::take_attempts).collect();
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    assert_eq!(calls.iter().sum::<u64>(), 1_000);
}
