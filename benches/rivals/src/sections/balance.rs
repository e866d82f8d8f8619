//! Ten endpoints, peak EWMA.

use std::iter::{repeat_n, repeat_with};

use ::tower::Service;
use ::tower::buffer::Buffer;

use super::{ROUNDS, unit};
use crate::measure::{Bench, Callee, Tower};
use crate::rivals::{ours, tower};
use crate::row::{Kind, Row, Section, fresh, inside, threads_with};
use crate::services::{AtOnce, Scripted};

const ENDPOINTS: usize = 10;
const MANY: usize = 1_000;

pub(super) fn section() -> Section {
    Section {
        title: "Balance, peak EWMA",
        kind: Kind::Alone,
        note: "`Buffer` is what makes tower's balancer cloneable. It is a task, so those calls are made inside \
               a runtime with one thread. tower chooses between two endpoints, we of three among so few.",
        rounds: ROUNDS,
        rows: vec![
            unit(),
            fresh("buttress", "balance, 10", ours(ENDPOINTS)).shows(|| spreads(ours::balance)),
            fresh("buttress", "balance, 1,000", ours(MANY)),
            fresh("tower", "balance, 10, not cloneable", ready(ENDPOINTS))
                .shows(|| spreads(tower::balance)),
            fresh("tower", "balance, 1,000, not cloneable", ready(MANY)),
            inside("tower", "buffer and balance, 10", buffered(ENDPOINTS)),
            inside("tower", "buffer and balance, 1,000", buffered(MANY)),
        ],
    }
}

/// The same on two threads, where tower's balancer alone cannot go.
pub(super) fn on_threads(name: &'static str, endpoints: usize) -> Row {
    threads_with("buttress", name, ours(endpoints))
}

fn ours(endpoints: usize) -> impl Fn() -> Tower<buttress::Balance<AtOnce>> {
    let service = ours::balance(repeat_n(AtOnce, endpoints));
    move || Tower(service.clone())
}

/// Has made all endpoints ready, which the first call does.
fn ready(endpoints: usize) -> impl Fn() -> Tower<tower::Balance<AtOnce>> {
    move || {
        let mut service = Tower(tower::balance(repeat_n(AtOnce, endpoints)));
        assert_eq!(service.call(1), Some(2));
        service
    }
}

type Buffered = Buffer<u64, <tower::Balance<AtOnce> as Service<u64>>::Future>;

fn buffered(endpoints: usize) -> impl Fn() -> Tower<Buffered> {
    let ready = ready(endpoints);
    move || Tower(Buffer::new(ready().0, 1_024))
}

/// Panics unless most endpoints get a share of the calls: one whose call was interrupted by another process may be avoided.
fn spreads<S: Bench>(balance: impl Fn(Vec<Scripted>) -> S) {
    let scripts: Vec<_> = repeat_with(Scripted::default).take(ENDPOINTS).collect();
    let mut service = Tower(balance(scripts.clone()));
    for _ in 0..1_000 {
        assert_eq!(service.call(1), Some(2));
    }
    let calls: Vec<_> = scripts.iter().map(Scripted::take_attempts).collect();
    let used = calls.iter().filter(|calls| **calls > 0).count();
    assert!(used > ENDPOINTS / 2, "{calls:?}");
    assert_eq!(calls.iter().sum::<u64>(), 1_000);
}
