//! Parts that are written outside the crate: [`Coin`], which the suites of all layers try as well, and one in which
//! attempts wait.

use crate::common;

use std::mem;
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::time::Duration;

use buttress::part::{Admit, At, EndedBy, Part, PartFor, PartLayer, PartService, Record, Turn};
use buttress::{
    CircuitBreakerLayer, Deadline, Error, ErrorKind, GaveUp, Outcome, RetryLayer,
    circuit_breaker::State,
};
use common::coin::Coin;
use common::{End, Plan, Probe, Task, kind as kind_of};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

const NAME: &str = "coin";

fn coin(share: f64, seed: u64) -> PartLayer<Coin> {
    PartLayer::of(NAME, Coin::new(NAME, share, seed))
}

/// Calls `client` so often, and returns which of the calls were admitted.
async fn admitted(client: &PartService<Probe, Coin>, calls: usize) -> Vec<bool> {
    let mut admitted = Vec::new();
    for _ in 0..calls {
        admitted.push(client.send(1).await.is_ok());
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn a_coin_refuses_the_same_calls_for_the_same_seed() {
    let probes = [Probe::new(&[]), Probe::new(&[]), Probe::new(&[])];
    let [first, same, other] = [7, 7, 8].map(|seed| coin(0.25, seed));
    let first = admitted(&first.wrap(probes[0].clone()), 1_000).await;
    let same = admitted(&same.wrap(probes[1].clone()), 1_000).await;
    let other = admitted(&other.wrap(probes[2].clone()), 1_000).await;
    assert_eq!(first, same);
    assert_ne!(first, other);
    let passed = first.iter().filter(|passed| **passed).count();
    assert!((200..300).contains(&passed), "{passed}");
    assert_eq!(probes[0].calls(), passed, "the others are not sent");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_layer_and_gives_the_reservation_back() {
    let probe = Probe::new(&[]);
    let mut client = coin(0.0, 1).wrap(probe.clone());
    client.ready().await.unwrap();
    assert_eq!(probe.seen().held, 1);
    let mut call = client.call(1);
    assert_eq!(probe.seen().held, 0, "before the answer is read");
    let Poll::Ready(Err(error)) = Task::default().poll(&mut call) else {
        panic!("is refused at once");
    };
    assert_eq!((error.kind(), error.name()), (ErrorKind::Refused, NAME));
    assert!(error.is_rejection() && !error.was_sent());
    assert_eq!(error.to_string(), "\"coin\" refused the call");
    assert_eq!(probe.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn layers_around_a_part_know_its_refusals() {
    let breaker = CircuitBreakerLayer::config(NAME).consecutive_failures(1);
    let breaker = breaker.build().expect("is valid");
    let inner = coin(0.0, 1).wrap(Probe::new(&[]));
    let client = RetryLayer::new(NAME).wrap(breaker.wrap(inner));
    let error = client.send(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.gave_up(), Some(GaveUp::Rejected));
    assert_eq!(error.attempts(), Some(1));
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_is_one_coin() {
    let (layer, other) = (coin(1.0, 1), coin(1.0, 1));
    let script = [Plan::answer(0, End::Held)];
    let mut calls = [&layer, &layer.clone()].map(|layer| layer.wrap(Probe::new(&script)).call(1));
    for call in &mut calls {
        assert!(Task::default().poll(call).is_pending());
    }
    assert_eq!(layer.part().in_flight(), 2);
    assert_eq!(other.part().in_flight(), 0);
    drop(calls);
    assert_eq!(layer.part().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_coin_counts_right_through_refusals_drops_and_panics() {
    let layer = coin(0.5, 3);
    let in_call = Plan {
        panics_in_call: true,
        ..Plan::GOOD
    };
    for plan in [
        Plan::GOOD,
        Plan::FAILS,
        Plan::answer(0, End::Held),
        Plan::answer(0, End::Panic),
        Plan::readiness(0, End::Held),
        in_call,
    ] {
        for polls in 0..2 {
            for _ in 0..20 {
                let mut client = layer.wrap(Probe::new(&[plan]));
                let run = tokio::spawn(async move {
                    let mut call = client.call(1);
                    for _ in 0..polls {
                        drop(Task::default().poll(&mut call));
                    }
                });
                let may_panic = plan.panics_in_call || plan.answer.1 == End::Panic;
                assert!(run.await.is_ok() || may_panic, "{plan:?}");
                assert_eq!(layer.part().in_flight(), 0, "{plan:?}, {polls} polls");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_gives_back_what_a_part_further_inside_refuses() {
    let pair = (Coin::new(NAME, 1.0, 1), Coin::new("inner", 0.0, 1));
    let layer = PartLayer::of("pair", pair);
    let probe = Probe::new(&[]);
    let result = layer.wrap(probe.clone()).send(1).await;
    assert_eq!(kind_of(&result), Some(ErrorKind::Refused));
    assert_eq!(result.unwrap_err().name(), "inner");
    let in_flight = (layer.part().0.in_flight(), layer.part().1.in_flight());
    assert_eq!((in_flight, probe.calls()), ((0, 0), 0));
}

/// Has every attempt wait for some seconds, one for each that the request asks for, and notes how attempts ended.
#[derive(Default)]
struct Delay {
    ends: Mutex<Vec<(EndedBy, Outcome, Duration)>>,
}

#[derive(Default)]
enum Delayed {
    #[default]
    Nothing,
    Until(Instant),
    Admitted,
}

impl Part for Delay {
    type Ask = u32;
    type Permit = Delayed;

    fn is_timed(&self) -> bool {
        true
    }

    fn admit(&self, seconds: u32, permit: &mut Delayed, at: &At) -> Admit {
        *permit = Delayed::Until(at.instant() + Duration::from_secs(seconds.into()));
        Admit::Wait
    }

    fn is_waiting(&self, permit: &Delayed) -> bool {
        matches!(permit, Delayed::Until(_))
    }

    fn poll_turn(&self, _: u32, permit: &mut Delayed, at: &At, _: &Waker) -> Turn {
        let Delayed::Until(until) = *permit else {
            return Turn::Go;
        };
        if until <= at.instant() {
            *permit = Delayed::Admitted;
            return Turn::Go;
        }
        match Deadline::current().map(Deadline::instant) {
            Some(deadline) if deadline <= at.instant() => {
                *permit = Delayed::Nothing;
                Turn::Refuse(Error::refused("delay", None))
            }
            deadline => Turn::Until(deadline.map_or(until, |deadline| deadline.min(until))),
        }
    }

    fn settle(&self, permit: &mut Delayed, record: &Record<'_>) {
        if !matches!(mem::take(permit), Delayed::Nothing) {
            let end = (record.ended_by, record.outcome, record.duration());
            self.ends.lock().expect("not poisoned").push(end);
        }
    }
}

impl PartFor<u32> for Delay {
    fn ask(&self, seconds: &u32) -> u32 {
        *seconds
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_its_part_and_holds_nothing_meanwhile() {
    let takes = Duration::from_millis(300);
    let layer = PartLayer::of("delay", (Delay::default(), Coin::new(NAME, 1.0, 1)));
    let probe = Probe::new(&[Plan::answer(0, End::Late(takes)); 2]);
    let mut client = layer.wrap(probe.clone());
    client.ready().await.unwrap();
    let began = Instant::now();
    let mut call = client.call(2);
    assert!(Task::default().poll(&mut call).is_pending());
    assert_eq!(probe.seen().held, 0);
    assert_eq!(layer.part().1.in_flight(), 0, "its turn has not come");
    call.await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2) + takes);
    // The wait is not time of the service.
    let ends = layer.part().0.ends.lock().unwrap().clone();
    assert_eq!(ends, [(EndedBy::Service, Outcome::Success, takes)]);
    assert_eq!(layer.part().1.in_flight(), 0);
}

/// A delay whose attempts look as if they waited until they end, against the rules of a part.
#[derive(Default)]
struct Lingering(Delay);

impl Part for Lingering {
    type Ask = u32;
    type Permit = Delayed;

    fn admit(&self, seconds: u32, permit: &mut Delayed, at: &At) -> Admit {
        self.0.admit(seconds, permit, at)
    }

    fn is_waiting(&self, permit: &Delayed) -> bool {
        !matches!(permit, Delayed::Nothing)
    }

    fn poll_turn(&self, seconds: u32, permit: &mut Delayed, at: &At, waker: &Waker) -> Turn {
        self.0.poll_turn(seconds, permit, at, waker)
    }

    fn settle(&self, permit: &mut Delayed, record: &Record<'_>) {
        self.0.settle(permit, record);
    }
}

impl PartFor<u32> for Lingering {
    fn ask(&self, seconds: &u32) -> u32 {
        *seconds
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_part_is_admitted_once_though_the_first_one_seems_to_wait_on() {
    let layer = PartLayer::of("pair", (Lingering::default(), Delay::default()));
    let began = Instant::now();
    let call = layer.wrap(Probe::new(&[])).send(2);
    let ended = tokio::time::timeout(Duration::from_secs(60), call).await;
    assert!(ended.is_ok_and(|result| result.is_ok()));
    assert_eq!(began.elapsed(), Duration::from_secs(4), "one wait each");
}

#[tokio::test(start_paused = true)]
async fn a_part_ends_a_wait_at_the_deadline_that_is_in_force() {
    let layer = PartLayer::of("delay", Delay::default());
    let probe = Probe::new(&[]);
    let client = layer.wrap(probe.clone());
    let began = Instant::now();
    let deadline = Deadline::after(Duration::from_secs(1));
    let result = deadline.scope(client.send(9)).await;
    assert_eq!(kind_of(&result), Some(ErrorKind::Refused));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(probe.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_waits_is_settled_once() {
    let layer = PartLayer::of("delay", (Coin::new(NAME, 1.0, 1), Delay::default()));
    let mut call = layer.wrap(Probe::new(&[])).call(9);
    let task = Task::default();
    assert!(task.poll(&mut call).is_pending());
    assert_eq!(layer.part().0.in_flight(), 1);
    drop(call);
    assert!(task.is_forgotten());
    assert_eq!(layer.part().0.in_flight(), 0);
    let ends = layer.part().1.ends.lock().unwrap().clone();
    assert_eq!(
        ends,
        [(EndedBy::Caller, Outcome::Cancelled, Duration::ZERO)]
    );
}
