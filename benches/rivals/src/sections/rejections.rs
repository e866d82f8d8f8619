//! Calls that are refused.

use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};

use tower::{Layer, Service};

use super::{ROUNDS, unit};
use crate::measure::{Bench, Callee, Native, Tower};
use crate::rivals::{failsafe, governor, ours, recloser, resilience, seatbelt, tower as rival};
use crate::row::{Kind, Row, Section, rejected, rejected_inside};
use crate::services::{Answer, AtOnce, FAIL, Failed, HANG, Scripted};

pub(super) fn section() -> Section {
    let ours_open = ours::breaker();
    ours_open.handle().force_open();
    Section {
        title: "Rejections",
        kind: Kind::Alone,
        note: "Each layer is brought into the state in which it rejects: the breakers by failing calls (ours by its \
               handle), the rate limits by a call for the day, the bulkheads by a call that does not end. The unit \
               is a call that passes. The full bulkhead of tower-resilience answers when a timer of 0 s is over, which the runtime \
               sees at its next millisecond.",
        rounds: ROUNDS / 5,
        rows: vec![
            unit(),
            of("buttress", "circuit breaker, open", &ours_open),
            of(
                "recloser",
                "circuit breaker, open",
                &tripped(recloser::stays_open()),
            ),
            of(
                "failsafe",
                "circuit breaker, open",
                &tripped(failsafe::breaker()),
            ),
            seatbelt_open(),
            seatbelt_open_native(),
            of(
                "tower-resilience",
                "circuit breaker, open",
                &tripped(resilience::breaker()),
            ),
            of(
                "buttress",
                "rate limit, used up",
                &used_up(ours::one_a_day()),
            ),
            of(
                "governor",
                "rate limit, used up",
                &used_up(governor::one_a_day()),
            ),
            tower_used_up(),
            of(
                "tower-resilience",
                "rate limit, used up",
                &used_up(resilience::one_a_day()),
            ),
            of("buttress", "bulkhead, full", &full(ours::concurrency(1))),
            of(
                "tower",
                "concurrency limit and load shed, full",
                &rival::shedding(full(rival::concurrency(1))),
            ),
            resilience_full(),
        ],
    }
}

fn of<L>(by: &'static str, name: &'static str, layer: &L) -> Row
where
    L: Layer<AtOnce, Service: Bench + Clone>,
{
    let service = layer.layer(AtOnce);
    rejected(by, name, move || Tower(service.clone()))
}

/// A breaker that has seen enough failures.
fn tripped<L: Layer<Scripted, Service: Bench>>(layer: L) -> L {
    fail(&mut Tower(layer.layer(Scripted::default())));
    layer
}

fn fail(callee: &mut impl Callee) {
    for _ in 0..200 {
        assert_eq!(callee.call(FAIL), None);
    }
}

/// The services of one layer of seatbelt do not share a breaker, but the clones of one service do.
fn seatbelt_open() -> Row {
    let mut service = Tower(seatbelt::breaker().layer(Fuse));
    fail(&mut service);
    rejected("seatbelt", "circuit breaker, open", move || service.clone())
}

fn seatbelt_open_native() -> Row {
    let service = seatbelt::breaker().layer(Fuse);
    fail(&mut Native(service.clone()));
    rejected(
        "seatbelt",
        "circuit breaker, open, native form",
        move || Native(service.clone()),
    )
}

/// A limit that has let its call for the day through.
fn used_up<L: Layer<AtOnce, Service: Bench>>(layer: L) -> L {
    assert_eq!(Tower(layer.layer(AtOnce)).call(1), Some(2));
    layer
}

fn tower_used_up() -> Row {
    rejected("tower", "rate limit and load shed, used up", || {
        let mut service = Tower(rival::shedding(rival::one_a_day()).layer(AtOnce));
        assert_eq!(service.call(1), Some(2));
        service
    })
}

/// A bulkhead whose only permit is never given back.
fn full<L: Layer<Scripted, Service: Bench>>(layer: L) -> L {
    let mut service = layer.layer(Scripted::default());
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut hangs = Box::pin(service.call(HANG));
    assert!(hangs.as_mut().poll(&mut context).is_pending());
    std::mem::forget(hangs);
    layer
}

fn resilience_full() -> Row {
    let service = full(resilience::concurrency(1)).layer(AtOnce);
    rejected_inside("tower-resilience", "bulkhead, full", move || {
        Tower(service.clone())
    })
}

/// Fails when it is told to, without counting.
#[derive(Clone, Copy, Debug)]
struct Fuse;

fn blow(request: u64) -> Ready<Answer> {
    ready(if request == FAIL {
        Err(Failed)
    } else {
        Ok(request + 1)
    })
}

impl Service<u64> for Fuse {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        blow(request)
    }
}

impl layered::Service<u64> for Fuse {
    type Out = Answer;

    fn execute(&self, request: u64) -> impl Future<Output = Answer> + Send {
        blow(request)
    }
}
