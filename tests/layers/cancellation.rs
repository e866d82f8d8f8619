//! What is left of a call that was dropped, or whose inner service panicked, and of a result that
//! comes too late: nothing.

use crate::common;
use crate::recorded;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::debugging::{DebuggingRecorder, Snapshotter};
use buttress::circuit_breaker::{Config, Handle, State};
use buttress::{
    Availability, BoxError, CircuitBreakerLayer, Error, ErrorKind, Outcome, classify_fn,
};
use common::{
    ATTEMPTS, BACKOFF, Client, Crowd, End, GOOD, Kind, LEASE, Layers, OPEN_FOR, Plan, Probe, Task,
    kind as kind_of,
};
use recorded::assert_levels_are_zero;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio::time::{Instant, advance, sleep};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};

/// How it stands when the call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Fresh,
    /// The breaker is half-open.
    HalfOpen,
    /// The call has to wait for its turn, or for an endpoint.
    Crowded,
}

/// Each kind, and those with a breaker, a queue or a balancer once more while these are not passed
/// at once.
fn subjects() -> impl Iterator<Item = (Kind, Start)> {
    let with = |start| Kind::ALL.into_iter().map(move |kind| (kind, start));
    let half_open = with(Start::HalfOpen).filter(|(kind, _)| kind.breaks());
    let crowded = with(Start::Crowded).filter(|(kind, _)| kind.waits());
    with(Start::Fresh).chain(half_open).chain(crowded)
}

/// A client, and all that could keep something of a call.
struct Subject {
    layers: Layers,
    probe: Probe,
    client: Client,
    crowd: Option<Crowd>,
}

impl Subject {
    async fn new((kind, start): (Kind, Start), script: &[Plan]) -> Self {
        let (layers, probe) = (Layers::new(kind), Probe::new(script));
        let client = layers.around(probe.clone());
        if start == Start::HalfOpen {
            layers.half_open().await;
        }
        let crowd = (start == Start::Crowded).then(|| layers.crowd());
        // Whatever it takes to answer, a call of the second service may be dropped there as well.
        layers.spare.follow(&[ALL_BUSY]);
        Self {
            layers,
            probe,
            client,
            crowd,
        }
    }

    /// Checks that nothing is held, and that the next call goes through.
    async fn assert_unharmed(mut self, case: &str) {
        self.crowd = None;
        self.layers.assert_nothing_is_held(case);
        assert_eq!(self.probe.seen().held, 0, "{case}");
        self.probe.follow(&[]);
        // An attempt that failed may have opened the breaker again.
        advance(OPEN_FOR).await;
        sleep(BACKOFF).await;
        let spare_calls = self.layers.spare.calls();
        let result = self.client.oneshot(1).await;
        assert!(result.is_ok(), "{case}: {result:?}");
        assert_eq!(self.layers.spare.calls(), spare_calls, "{case}");
        self.layers.assert_nothing_is_held(case);
        self.layers.assert_no_key_is_in_use(case).await;
    }
}

/// The outcomes of the operations that have been measured since this was last asked.
fn operations(snapshotter: &Snapshotter) -> Vec<String> {
    let mut outcomes = Vec::new();
    for row in recorded::rows(snapshotter).filter(|row| row.metric == "buttress_calls_total") {
        if row.label("stage") == Some("operation") {
            let outcome = row.label("outcome").expect("there is one");
            outcomes.extend((0..row.value as u64).map(|_| outcome.to_owned()));
        }
    }
    outcomes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    BetweenPolls,
    /// No poll follows: nothing wakes the task any more.
    Stuck,
    Over,
}

/// Polls `call` so many times, and drops it.
async fn poll_and_drop(task: &Task, mut call: impl Future + Unpin, polls: u32) -> Dropped {
    for poll in 0..polls {
        if poll > 0 && !task.wait().await {
            return Dropped::Stuck;
        }
        if task.poll(&mut call).is_ready() {
            return Dropped::Over;
        }
    }
    Dropped::BetweenPolls
}

const ALL_BUSY: Plan = Plan {
    readiness: (2, GOOD),
    ..Plan::answer(2, GOOD)
};

/// The ways of an inner service to end, or not to.
const SCRIPTS: [&[Plan]; 8] = [
    &[Plan::GOOD],
    &[ALL_BUSY],
    &[Plan::readiness(0, End::Held)],
    &[Plan::answer(0, End::Held)],
    &[Plan::readiness(2, End::Error), ALL_BUSY],
    &[Plan::answer(2, End::Error), Plan::FAILS, ALL_BUSY],
    &[Plan::answer(1, End::Done(Outcome::Failure)), ALL_BUSY],
    &[Plan::answer(1, End::Done(Outcome::Ignored))],
];

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_poll_leaves_nothing_behind() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    for subject in subjects() {
        for script in SCRIPTS {
            for polls in 0.. {
                let case = format!("{subject:?}, {polls} polls, {script:?}");
                let mut run = Subject::new(subject, script).await;
                operations(&snapshotter);
                let task = Task::default();
                task.poll_ready(&mut run.client);
                let dropped = poll_and_drop(&task, run.client.call(1), polls).await;
                assert!(task.is_forgotten(), "{case}");
                let operations = operations(&snapshotter);
                assert_eq!(
                    operations.len(),
                    usize::from(subject.0.measures()),
                    "{case}"
                );
                for outcome in operations {
                    let is_over = dropped == Dropped::Over;
                    assert_eq!(outcome != "cancelled", is_over, "{case}: {outcome}");
                }
                run.crowd = None;
                assert_levels_are_zero(&snapshotter, &case);
                run.assert_unharmed(&case).await;
                self::operations(&snapshotter);
                if dropped != Dropped::BetweenPolls {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_leaves_nothing_behind() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let in_call = Plan {
        panics_in_call: true,
        ..Plan::GOOD
    };
    let in_late_call = Plan {
        panics_in_call: true,
        ..Plan::readiness(1, GOOD)
    };
    let panics = [
        Plan::readiness(1, End::Panic),
        in_call,
        in_late_call,
        Plan::answer(0, End::Panic),
        Plan::answer(1, End::Panic),
        // Before there is a call, where readiness is asked for.
        Plan::readiness(0, End::Panic),
    ];
    for subject @ (kind, start) in subjects() {
        for panics in panics {
            let may_repeat = kind.recovers() && start != Start::HalfOpen;
            let repeated: &[_] = if may_repeat {
                &[Plan::FAILS, panics]
            } else {
                &[]
            };
            for script in [&[panics][..], repeated] {
                let case = format!("{subject:?}, {script:?}");
                if script.is_empty() {
                    continue;
                }
                let mut run = Subject::new(subject, script).await;
                run.layers.spare.follow(&[panics]);
                operations(&snapshotter);
                let mut client = run.client.clone();
                let call = async move {
                    // A handle that is ready is given up when its call has to wait.
                    if start != Start::Crowded {
                        client.ready().await?;
                    }
                    client.call(1).await
                };
                let result = tokio::spawn(call).await;
                let has_panicked = result.as_ref().is_err_and(JoinError::is_panic);
                assert!(has_panicked, "{case}: {result:?}");
                let before_call = matches!(script, [plan] if plan.readiness == (0, End::Panic));
                let expected: &[_] = if kind.measures() && (start != Start::Fresh || !before_call) {
                    &["cancelled"]
                } else {
                    &[]
                };
                assert_eq!(operations(&snapshotter), expected, "{case}");
                run.crowd = None;
                assert_levels_are_zero(&snapshotter, &case);
                run.layers.spare.follow(&[]);
                run.assert_unharmed(&case).await;
                operations(&snapshotter);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_during_the_backoff_leaves_no_timer() {
    for subject in subjects().filter(|(kind, start)| kind.retries() && *start == Start::Fresh) {
        let mut run = Subject::new(subject, &[Plan::FAILS]).await;
        let tokens = run.layers.budget().tokens();
        let task = Task::default();
        let mut call = run.client.call(1);
        assert!(task.poll(&mut call).is_pending());
        assert!(!task.was_woken(), "{subject:?}: it waits");
        assert_eq!(run.layers.budget().in_flight(), 1, "{subject:?}");
        drop(call);
        assert_eq!(run.layers.budget().in_flight(), 0, "{subject:?}");
        assert_eq!(
            run.layers.budget().tokens(),
            tokens - 10,
            "{subject:?}: paid"
        );
        assert!(task.is_forgotten(), "{subject:?}");
        advance(BACKOFF * ATTEMPTS).await;
        assert!(!task.was_woken(), "{subject:?}");
        assert_eq!(run.probe.calls(), 1, "{subject:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_timed_out_is_dropped_before_the_caller_knows() {
    for kind in Kind::ALL {
        let Some(patience) = kind.patience() else {
            continue;
        };
        for plan in [Plan::answer(0, End::Held), Plan::readiness(0, End::Held)] {
            let mut run = Subject::new((kind, Start::Fresh), &[plan; 6]).await;
            let task = Task::default();
            let started = Instant::now();
            let mut call = run.client.call(1);
            let result = loop {
                match task.poll(&mut call) {
                    Poll::Ready(result) => break result,
                    Poll::Pending => assert!(task.wait().await, "{kind:?} {plan:?}"),
                }
            };
            assert!(started.elapsed() <= patience, "{kind:?} {plan:?}");
            let error = match kind {
                Kind::Deadline => ErrorKind::DeadlineExceeded,
                _ => ErrorKind::Timeout,
            };
            assert_eq!(kind_of(&result), Some(error), "{kind:?} {plan:?}");
            assert_eq!(run.probe.seen().held, 0, "{kind:?} {plan:?}");
            drop(call);
        }
    }
}

type Calls = BoxCloneSyncService<oneshot::Receiver<Outcome>, Outcome, Error>;

/// A breaker around calls that end when and how the test says.
struct Breaker {
    handle: Handle,
    calls: Calls,
}

/// A call that the breaker has let through.
struct Admitted {
    call: <Calls as Service<oneshot::Receiver<Outcome>>>::Future,
    answer: oneshot::Sender<Outcome>,
}

impl Breaker {
    /// A breaker that opens at the first failure.
    fn new() -> Self {
        Self::config(|config| config)
    }

    fn config(set: impl FnOnce(Config) -> Config) -> Self {
        let config = CircuitBreakerLayer::config("epochs")
            .consecutive_failures(1)
            .open_for(OPEN_FOR)
            .open_jitter(0.0)
            .probe_lease(LEASE);
        let outcome = classify_fn(|result: Result<&Outcome, &Error>| {
            result.copied().unwrap_or(Outcome::Failure)
        });
        let layer = set(config).classify(outcome).build().expect("is valid");
        let answer =
            |answer: oneshot::Receiver<Outcome>| async move { Ok::<_, BoxError>(answer.await?) };
        Self {
            handle: layer.handle(),
            calls: Calls::new(layer.wrap(service_fn(answer))),
        }
    }

    /// Makes a call, and polls it once if it is let through.
    fn begin(&self) -> Option<Admitted> {
        let (answer, outcome) = oneshot::channel();
        let mut call = self.calls.clone().call(outcome);
        match Task::default().poll(&mut call) {
            Poll::Pending => Some(Admitted { call, answer }),
            Poll::Ready(result) => {
                let error = result.expect_err("there is no answer yet");
                let kind = Some(error.kind());
                assert_eq!(kind, Some(ErrorKind::CircuitOpen));
                None
            }
        }
    }

    fn call(&self, outcome: Outcome) {
        self.begin().expect("is let through").end(outcome);
    }

    /// Opens the closed breaker, and lets its open time pass.
    async fn open_and_wait(&self) {
        self.call(Outcome::Failure);
        assert_eq!(self.handle.state(), State::Open);
        advance(OPEN_FOR).await;
    }
}

impl Admitted {
    fn end(mut self, outcome: Outcome) {
        self.answer.send(outcome).expect("the call waits for it");
        assert!(Task::default().poll(&mut self.call).is_ready());
    }
}

const OUTCOMES: [Outcome; 5] = [
    Outcome::Success,
    Outcome::Failure,
    Outcome::Overload {
        retry_after: Some(Duration::from_secs(200)),
    },
    Outcome::Ignored,
    Outcome::Cancelled,
];

/// A call for each outcome, all of them in flight.
fn one_for_each_outcome(breaker: &Breaker) -> Vec<(Admitted, Outcome)> {
    let begin = |outcome| (breaker.begin().expect("is closed"), outcome);
    OUTCOMES.into_iter().map(begin).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_it_opened_changes_nothing_while_open() {
    let breaker = Breaker::new();
    let late = one_for_each_outcome(&breaker);
    breaker.call(Outcome::Failure);
    advance(OPEN_FOR / 2).await;
    for (call, outcome) in late {
        call.end(outcome);
        assert_eq!(breaker.handle.state(), State::Open, "{outcome:?}");
        assert!(breaker.begin().is_none(), "{outcome:?}");
    }
    advance(OPEN_FOR / 2).await;
    assert!(breaker.begin().is_some(), "no later than without them");
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_it_opened_changes_nothing_while_half_open() {
    let breaker = Breaker::config(|config| config.successes_to_close(1));
    let late = one_for_each_outcome(&breaker);
    breaker.open_and_wait().await;
    let probe = breaker.begin().unwrap();
    for (call, outcome) in late {
        call.end(outcome);
        assert_eq!(breaker.handle.state(), State::HalfOpen, "{outcome:?}");
        assert!(breaker.begin().is_none(), "{outcome:?}: the place is taken");
    }
    probe.end(Outcome::Success);
    assert_eq!(breaker.handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_it_opened_changes_nothing_when_closed_again() {
    let breaker = Breaker::config(|config| config.successes_to_close(1));
    let late = one_for_each_outcome(&breaker);
    breaker.open_and_wait().await;
    breaker.call(Outcome::Success);
    for (call, outcome) in late {
        call.end(outcome);
        assert_eq!(breaker.handle.state(), State::Closed, "{outcome:?}");
    }
    breaker.call(Outcome::Failure);
    assert_eq!(breaker.handle.state(), State::Open, "its own calls count");
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_a_reset_changes_nothing() {
    let breaker = Breaker::new();
    let late = one_for_each_outcome(&breaker);
    breaker.handle.reset();
    for (call, outcome) in late {
        call.end(outcome);
        assert_eq!(breaker.handle.state(), State::Closed, "{outcome:?}");
    }
}

/// A breaker that is half-open, with a probe in flight that has lost its place.
async fn with_a_probe_that_hangs() -> (Breaker, Admitted) {
    let breaker = Breaker::config(|config| config.probe_lease(OPEN_FOR).successes_to_close(1));
    breaker.open_and_wait().await;
    let hanging = breaker.begin().expect("a place is free");
    assert!(breaker.begin().is_none() && !breaker.handle.is_available());
    advance(OPEN_FOR).await;
    assert!(breaker.handle.is_available());
    (breaker, hanging)
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_gives_its_place_to_another() {
    let (breaker, hanging) = with_a_probe_that_hangs().await;
    let next = breaker.begin().unwrap();
    assert!(breaker.begin().is_none(), "one takes its place");
    hanging.end(Outcome::Ignored);
    assert!(breaker.begin().is_none(), "which it cannot give back twice");
    next.end(Outcome::Success);
    assert_eq!(breaker.handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_counts_if_the_service_had_enough_time() {
    let (breaker, hanging) = with_a_probe_that_hangs().await;
    drop(hanging);
    assert_eq!(breaker.handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_overran_its_time_still_counts() {
    let (breaker, hanging) = with_a_probe_that_hangs().await;
    hanging.end(Outcome::Failure);
    assert_eq!(breaker.handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_round_changes_nothing_while_open() {
    for outcome in OUTCOMES {
        let (breaker, hanging) = with_a_probe_that_hangs().await;
        breaker.call(Outcome::Failure);
        hanging.end(outcome);
        assert_eq!(breaker.handle.state(), State::Open, "{outcome:?}");
        assert!(breaker.begin().is_none(), "{outcome:?}");
        advance(OPEN_FOR).await;
        assert!(breaker.begin().is_some(), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_round_changes_nothing_in_the_next_one() {
    for outcome in OUTCOMES {
        let (breaker, hanging) = with_a_probe_that_hangs().await;
        breaker.call(Outcome::Failure);
        advance(OPEN_FOR).await;
        let probe = breaker.begin().unwrap();
        hanging.end(outcome);
        assert_eq!(breaker.handle.state(), State::HalfOpen, "{outcome:?}");
        assert!(breaker.begin().is_none(), "{outcome:?}: the place is taken");
        probe.end(Outcome::Success);
        assert_eq!(breaker.handle.state(), State::Closed, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_changes_nothing_when_closed() {
    for outcome in OUTCOMES {
        let (breaker, hanging) = with_a_probe_that_hangs().await;
        breaker.call(Outcome::Success);
        hanging.end(outcome);
        assert_eq!(breaker.handle.state(), State::Closed, "{outcome:?}");
    }
}

/// How a probe ends, in words and in deed.
type Way = (&'static str, fn(Admitted));

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_returns_its_place() {
    let breaker = Breaker::new();
    breaker.open_and_wait().await;
    let ways: [Way; 4] = [
        ("dropped", drop),
        ("ignored", |probe| probe.end(Outcome::Ignored)),
        ("cancelled", |probe| probe.end(Outcome::Cancelled)),
        // The answer is there, but nobody has read it.
        ("dropped with its answer", |probe| {
            probe.answer.send(Outcome::Success).unwrap();
            drop(probe.call);
        }),
    ];
    for (way, end) in ways {
        let probe = breaker.begin().expect(way);
        assert!(breaker.begin().is_none(), "{way}");
        end(probe);
        assert_eq!(breaker.handle.state(), State::HalfOpen, "{way}");
        assert!(breaker.handle.is_available(), "{way}");
    }
    let (_answer, outcome) = oneshot::channel();
    drop(breaker.calls.clone().call(outcome));
    assert!(breaker.begin().is_some(), "dropped before its first poll");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_when_it_is_called_returns_its_place() {
    let panics = Plan {
        panics_in_call: true,
        ..Plan::GOOD
    };
    for kind in Kind::ALL.into_iter().filter(|kind| kind.breaks()) {
        let mut run = Subject::new((kind, Start::Fresh), &[panics]).await;
        // Ready since before it opened, so that the inner service is called at once.
        Task::default().poll_ready(&mut run.client);
        run.layers.half_open().await;
        let call = panic::catch_unwind(AssertUnwindSafe(|| {
            // Where the layer is not known before the call, it asks at the first poll.
            let mut call = run.client.call(1);
            drop(Task::default().poll(&mut call));
        }));
        assert!(call.is_err(), "{kind:?}");
        assert_eq!(run.layers.breaker().state(), State::HalfOpen, "{kind:?}");
        run.assert_unharmed(&format!("{kind:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_refused_below_returns_its_place() {
    let below = Layers::new(Kind::CircuitBreaker);
    let above = Layers::new(Kind::CircuitBreaker);
    let client = above.around(below.around(Probe::new(&[])));
    above.half_open().await;
    below.breaker().force_open();
    for _ in 0..20 {
        let result = client.clone().oneshot(1).await;
        assert_eq!(kind_of(&result), Some(ErrorKind::CircuitOpen));
        assert_eq!(above.breaker().state(), State::HalfOpen);
    }
    below.breaker().reset();
    client.oneshot(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_that_say_nothing_do_not_count() {
    for outcome in [Outcome::Ignored, Outcome::Cancelled] {
        let in_a_row = |config: Config| config.consecutive_failures(20).min_calls(1_000);
        let in_the_window = |config: Config| config.consecutive_failures(1_000);
        for breaker in [Breaker::config(in_a_row), Breaker::config(in_the_window)] {
            for _ in 0..19 {
                breaker.call(Outcome::Failure);
                (0..10).for_each(|_| breaker.call(outcome));
                drop(breaker.begin());
            }
            assert_eq!(breaker.handle.state(), State::Closed, "{outcome:?}");
            breaker.call(Outcome::Failure);
            assert_eq!(breaker.handle.state(), State::Open, "{outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_forced_stays_so() {
    let day = Duration::from_secs(24 * 60 * 60);
    let (breaker, probe) = with_a_probe_that_hangs().await;
    breaker.handle.force_open();
    advance(day).await;
    assert!(breaker.begin().is_none());
    probe.end(Outcome::Success);
    assert_eq!(breaker.handle.state(), State::Open);
    assert_eq!(breaker.handle.open_for_remaining(), None);
    assert!(!breaker.handle.is_available());

    let (breaker, probe) = with_a_probe_that_hangs().await;
    breaker.handle.force_closed();
    probe.end(Outcome::Failure);
    for _ in 0..100 {
        breaker.call(Outcome::Failure);
    }
    assert_eq!(breaker.handle.state(), State::Closed);
    breaker.handle.reset();
    breaker.call(Outcome::Failure);
    assert_eq!(breaker.handle.state(), State::Open, "it works as usual");
}

/// Runs `work` on several threads at once, under the clock of this test.
fn on_threads<T: Send>(work: impl Fn(&Barrier) -> T + Sync) -> Vec<T> {
    const THREADS: usize = 4;
    let clock = tokio::runtime::Handle::current();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let run = || {
            let _clock = clock.enter();
            barrier.wait();
            work(&barrier)
        };
        let threads = [(); THREADS].map(|()| scope.spawn(run));
        let results = threads.into_iter().map(thread::ScopedJoinHandle::join);
        results.map(|result| result.expect("no panic")).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn of_calls_that_come_together_one_is_the_first_probe() {
    let breaker = Breaker::new();
    for _ in 0..200 {
        breaker.open_and_wait().await;
        let calls = on_threads(|_| breaker.begin());
        assert_eq!(calls.into_iter().flatten().count(), 1);
        breaker.handle.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_forced_stays_so_while_results_come_in() {
    let breaker = Breaker::new();
    for _ in 0..200 {
        breaker.handle.reset();
        let calls = on_threads(|barrier| {
            let call = breaker.begin();
            if barrier.wait().is_leader() {
                breaker.handle.force_closed();
            }
            call.map(|call| call.end(Outcome::Failure))
        });
        assert_eq!(breaker.handle.state(), State::Closed);
        assert!(calls.iter().all(Option::is_some));
    }
}
