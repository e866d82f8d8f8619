//! Hedging: when a copy is sent, which answer counts, and what that costs.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use crate::recorded;

use std::collections::VecDeque;
use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::debugging::DebuggingRecorder;
use buttress::circuit_breaker::State;
use buttress::stack::Standard;
use buttress::{
    Backoff, BoxError, Budget, CircuitBreakerLayer, Classify, Deadline, Error, ErrorKind, Hedge,
    HedgeLayer, Jitter, Mode, Never, Outcome, Pushback, Rate, Replay, RetryLayer, TimeoutLayer,
    classify_fn, hedge, standard,
};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::buffer::Buffer;
use tower::{Layer, Service, ServiceExt};

const DELAY: Duration = Duration::from_millis(10);
const LONG: u64 = 1_000;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Answers(Outcome),
    Fails,
    Refused,
    /// Is never ready for the call.
    NotReady,
    Hangs,
}

const GOOD: End = End::Answers(Outcome::Success);

/// What the service has seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Sent(u32),
    Done(u32),
    Dropped(u32),
}

/// A service that follows a script: one line for each handle that is asked whether it is ready.
struct Leaf {
    shared: Arc<Shared>,
    line: Option<(u32, u64, End)>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<(u32, VecDeque<(u64, End)>)>,
    events: Mutex<Vec<(Duration, Event)>>,
    began: Mutex<Option<Instant>>,
}

impl Shared {
    fn note(&self, event: Event) {
        let began = *self.began.lock().unwrap().get_or_insert_with(Instant::now);
        self.events.lock().unwrap().push((began.elapsed(), event));
    }
}

impl Leaf {
    /// Each attempt takes so many milliseconds and ends like this; when the script is over, all go well.
    fn new(script: &[(u64, End)]) -> Self {
        let shared = Shared {
            script: Mutex::new((0, script.iter().copied().collect())),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
            line: None,
        }
    }

    fn events(&self) -> Vec<Event> {
        let events = self.shared.events.lock().unwrap();
        events.iter().map(|event| event.1).collect()
    }

    /// When the attempts were sent.
    fn sent(&self) -> Vec<Duration> {
        let events = self.shared.events.lock().unwrap();
        let sent = events
            .iter()
            .filter(|event| matches!(event.1, Event::Sent(_)));
        sent.map(|event| event.0).collect()
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            line: None,
        }
    }
}

/// The number of the attempt, and what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer(u32, Outcome);

struct Work(Arc<Shared>, u32, bool);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.note(if self.2 {
            Event::Done(self.1)
        } else {
            Event::Dropped(self.1)
        });
    }
}

impl Service<u8> for Leaf {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let shared = &self.shared;
        let (_, _, end) = *self.line.get_or_insert_with(|| {
            let (count, script) = &mut *shared.script.lock().unwrap();
            *count += 1;
            let (takes, end) = script.pop_front().unwrap_or((1, GOOD));
            (*count, takes, end)
        });
        if end == End::NotReady {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u8) -> Self::Future {
        let (number, takes, end) = self.line.take().expect("was polled ready");
        self.shared.note(Event::Sent(number));
        let work = Work(Arc::clone(&self.shared), number, false);
        Box::pin(async move {
            let mut work = work;
            sleep(millis(takes)).await;
            work.2 = end != End::Hangs;
            match end {
                End::Answers(outcome) => Ok(Answer(number, outcome)),
                End::Fails => Err(format!("attempt {number} failed").into()),
                End::Refused => Err(refusal()),
                End::Hangs | End::NotReady => pending().await,
            }
        })
    }
}

/// The error of an open circuit breaker.
fn refusal() -> BoxError {
    let open = CircuitBreakerLayer::new("leaf");
    open.handle().force_open();
    let service = tower::service_fn(|()| ready(Ok::<_, BoxError>(())));
    let future = pin!(open.layer(service).oneshot(()));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.unwrap_err().into(),
        Poll::Pending => panic!("it refuses at once"),
    }
}

type Judge = fn(Result<&Answer, &Error>) -> Outcome;

fn judge(result: Result<&Answer, &Error>) -> Outcome {
    result.map_or(Outcome::Failure, |answer| answer.1)
}

fn config() -> hedge::Config {
    HedgeLayer::config("leaf").delay(DELAY)
}

fn wrap(config: hedge::Config, leaf: &Leaf) -> Hedge<Leaf, buttress::ByClone, Judge> {
    wrap_around(config, leaf.clone())
}

fn wrap_around<S>(config: hedge::Config, inner: S) -> Hedge<S, buttress::ByClone, Judge>
where
    S: Service<u8, Response = Answer, Error: Into<BoxError> + 'static> + Clone,
{
    let layer = config.classify(judge as Judge).build().unwrap();
    layer.wrap(inner)
}

/// Makes one call.
async fn call(config: hedge::Config, leaf: &Leaf) -> (Result<Answer, Error>, Duration) {
    let began = Instant::now();
    // So that one that never ends fails the test.
    let result = timeout(Duration::from_secs(3_600), wrap(config, leaf).oneshot(7)).await;
    (result.expect("it ends"), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_slower_than_the_delay_is_sent_again() {
    let leaf = Leaf::new(&[(LONG, GOOD), (3, GOOD)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(result.unwrap(), Answer(2, Outcome::Success));
    assert_eq!(took, DELAY + millis(3));
    assert_eq!(leaf.sent(), [Duration::ZERO, DELAY]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_faster_is_not() {
    let leaf = Leaf::new(&[(9, GOOD)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(result.unwrap(), Answer(1, Outcome::Success));
    assert_eq!((took, leaf.sent().len()), (millis(9), 1));
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_gone_before_the_caller_goes_on() {
    use Event::{Done, Dropped, Sent};
    let leaf = Leaf::new(&[(LONG, GOOD), (3, GOOD)]);
    let mut client = wrap(config(), &leaf);
    let future = client.ready().await.unwrap().call(7);
    tokio::pin!(future);
    future.as_mut().await.unwrap();
    assert_eq!(leaf.events(), [Sent(1), Sent(2), Done(2), Dropped(1)]);

    let leaf = Leaf::new(&[(12, GOOD), (LONG, GOOD)]);
    let mut client = wrap(config(), &leaf);
    let future = client.ready().await.unwrap().call(7);
    tokio::pin!(future);
    assert_eq!(future.as_mut().await.unwrap().0, 1);
    assert_eq!(leaf.events(), [Sent(1), Sent(2), Done(1), Dropped(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_never_beats_an_attempt_that_is_running() {
    let overload = End::Answers(Outcome::Overload { retry_after: None });
    let failed = End::Answers(Outcome::Failure);
    for failure in [End::Fails, failed, overload, End::Refused] {
        let leaf = Leaf::new(&[(50, GOOD), (1, failure)]);
        let (result, took) = call(config(), &leaf).await;
        assert_eq!(result.unwrap().0, 1, "{failure:?}");
        assert_eq!(took, millis(50));

        let leaf = Leaf::new(&[(12, failure), (50, GOOD)]);
        let (result, _) = call(config(), &leaf).await;
        assert_eq!(result.unwrap().0, 2, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_followed_by_the_next_attempt_at_once() {
    let leaf = Leaf::new(&[(2, End::Fails), (3, GOOD)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(result.unwrap().0, 2);
    assert_eq!(took, millis(5));
}

#[tokio::test(start_paused = true)]
async fn an_overload_and_a_refusal_are_not() {
    let overload = End::Answers(Outcome::Overload { retry_after: None });
    for end in [overload, End::Refused] {
        let leaf = Leaf::new(&[(2, end)]);
        let (_, took) = call(config(), &leaf).await;
        assert_eq!((leaf.sent().len(), took), (1, millis(2)), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_retry_failures_are_its_business() {
    let leaf = Leaf::new(&[(2, End::Fails), (3, GOOD)]);
    let retry = RetryLayer::config("leaf")
        .backoff(Backoff::constant(millis(100)).jitter(Jitter::None))
        .build()
        .unwrap();
    let client = retry.layer(config().build().unwrap().layer(leaf.clone()));
    client.oneshot(7).await.unwrap();
    assert_eq!(leaf.sent(), [millis(0), millis(102)]);

    // Slowness is still this layer's.
    let leaf = Leaf::new(&[(LONG, GOOD), (3, GOOD)]);
    let client = retry.layer(config().build().unwrap().layer(leaf.clone()));
    client.oneshot(7).await.unwrap();
    assert_eq!(leaf.sent(), [Duration::ZERO, DELAY]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_the_callers_fault_ends_the_call() {
    let leaf = Leaf::new(&[(LONG, GOOD), (3, End::Answers(Outcome::Ignored))]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(result.unwrap(), Answer(2, Outcome::Ignored));
    assert_eq!(took, millis(13));
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_first_failure_comes_back_but_no_refusal() {
    let leaf = Leaf::new(&[(20, End::Fails), (30, End::Fails)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(
        result.unwrap_err().service_error().unwrap().to_string(),
        "attempt 1 failed"
    );
    assert_eq!(took, millis(40));

    let leaf = Leaf::new(&[(20, End::Fails), (1, End::Refused)]);
    let (result, _) = call(config(), &leaf).await;
    assert_eq!(
        result.unwrap_err().service_error().unwrap().to_string(),
        "attempt 1 failed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_cannot_begin_leaves_the_first_attempt_alone() {
    let leaf = Leaf::new(&[(50, GOOD), (0, End::NotReady)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!((result.unwrap().0, took), (1, millis(50)));
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_cannot_begin_is_hedged() {
    let leaf = Leaf::new(&[(0, End::NotReady), (2, GOOD)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!((result.unwrap().0, took), (2, millis(12)));
}

/// Judges by [`judge`], and finds this pushback in each failure and overload.
#[derive(Clone, Copy)]
struct Asking(Pushback);

impl Classify<Answer> for Asking {
    fn classify(&self, result: Result<&Answer, &Error>) -> Outcome {
        judge(result)
    }

    fn pushback(&self, result: Result<&Answer, &Error>) -> Option<Pushback> {
        assert!(judge(result).is_failure(), "nothing else is asked");
        Some(self.0)
    }
}

/// Makes one call to a service that says `pushback` with each failure. Returns when which attempts were sent, too.
async fn asked(
    pushback: Pushback,
    config: hedge::Config,
    script: &[(u64, End)],
) -> (Result<u32, String>, Vec<u128>, u128) {
    let leaf = Leaf::new(script);
    let layer = config.classify(Asking(pushback)).build().unwrap();
    let began = Instant::now();
    let call = timeout(
        Duration::from_secs(3_600),
        layer.layer(leaf.clone()).oneshot(7),
    );
    let result = call.await.expect("it ends");
    let result = result
        .map(|answer| answer.0)
        .map_err(|error| error.to_string());
    let sent = leaf.sent().iter().map(Duration::as_millis).collect();
    (result, sent, began.elapsed().as_millis())
}

const OVERLOAD: End = End::Answers(Outcome::Overload { retry_after: None });
const FAILURE: End = End::Answers(Outcome::Failure);

#[tokio::test(start_paused = true)]
async fn a_pushback_that_asks_for_no_attempt_ends_further_copies() {
    let config = || config().max_hedges(3);
    for end in [End::Fails, FAILURE, OVERLOAD] {
        let call = |script: [(u64, End); 2]| async move {
            asked(Pushback::DoNotRetry, config(), &script).await
        };
        let of_a_copy = call([(50, GOOD), (1, end)]).await;
        assert_eq!(of_a_copy, (Ok(1), vec![0, 10], 50), "{end:?}");
        let of_the_first = call([(12, end), (50, GOOD)]).await;
        assert_eq!(of_the_first, (Ok(2), vec![0, 10], 60), "{end:?}");
        let (_, sent, took) = call([(2, end), (1, GOOD)]).await;
        assert_eq!((sent, took), (vec![0], 2), "{end:?}: nothing else runs");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pushback_delays_the_next_copy() {
    let after = |wait| Pushback::RetryAfter(millis(wait));
    let config = || config().max_hedges(3);
    for end in [End::Fails, FAILURE, OVERLOAD] {
        let slow = [(600, GOOD), (1, end), (1, GOOD)];
        let while_it_runs = asked(after(500), config(), &slow).await;
        assert_eq!(while_it_runs, (Ok(3), vec![0, 10, 511], 512), "{end:?}");
    }
    // A time that is over sooner than the delay changes nothing.
    let slow = [(600, GOOD), (1, OVERLOAD), (1, GOOD)];
    assert_eq!(
        asked(after(5), config(), &slow).await,
        (Ok(3), vec![0, 10, 20], 21)
    );
    // A failure need not wait for the delay, but for the service.
    let slow = [(600, GOOD), (1, End::Fails), (1, GOOD)];
    assert_eq!(
        asked(after(5), config(), &slow).await,
        (Ok(3), vec![0, 10, 16], 17)
    );
    for end in [End::Fails, FAILURE] {
        let alone = asked(after(500), config(), &[(2, end), (1, GOOD)]).await;
        assert_eq!(alone, (Ok(2), vec![0, 502], 503), "{end:?}");
    }
    let overloaded = asked(after(500), config(), &[(2, OVERLOAD)]).await;
    assert_eq!(
        overloaded,
        (Ok(1), vec![0], 2),
        "is not followed by another one"
    );
    // The later of two times counts, and the further copies come after their delays again.
    let both = [(600, GOOD), (1, End::Fails), (1, End::Fails), (LONG, GOOD)];
    let both = asked(after(100), config(), &both).await;
    assert_eq!(both, (Ok(1), vec![0, 10, 111, 212], 600));
}

#[tokio::test(start_paused = true)]
async fn a_pushback_that_is_too_long_ends_further_copies() {
    let config = || config().max_hedges(3);
    let after = |seconds| Pushback::RetryAfter(Duration::from_secs(seconds));
    for (seconds, copies) in [(60, 2), (61, 1), (u64::MAX, 1)] {
        let script = [(100_000, GOOD), (1, End::Fails), (1, GOOD)];
        let (_, sent, _) = asked(after(seconds), config(), &script).await;
        assert_eq!(sent.len(), 1 + copies, "{seconds}");
    }
    let alone = asked(after(61), config(), &[(2, End::Fails)]).await;
    assert_eq!(alone, (Err("\"leaf\" failed".to_owned()), vec![0], 2));
    for (left, attempts) in [(1_001, 1), (1_003, 2)] {
        let call = asked(after(1), config(), &[(2, End::Fails)]);
        let (_, sent, _) = Deadline::after(millis(left)).scope(call).await;
        assert_eq!(sent.len(), attempts, "{left} ms until the deadline");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_denied_when_its_time_has_come_leaves_the_failure() {
    let none = Budget::config("leaf").initial(0).build().unwrap();
    let pushback = Pushback::RetryAfter(millis(500));
    for end in [End::Fails, FAILURE] {
        let (result, sent, took) = asked(pushback, config().budget(&none), &[(2, end)]).await;
        assert_eq!((sent, took), (vec![0], 502));
        assert_eq!(result.is_ok(), end == FAILURE, "as it came");
    }
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn hedges_obey_what_grpc_and_http_servers_ask_for() {
    use buttress::http::{Classifier, grpc};
    use http::Response;

    /// The milliseconds at which attempts come to a service of which the first answers after a second, and the
    /// others at once with these headers.
    async fn sent<K>(
        classify: K,
        status: u16,
        headers: [(&'static str, &'static str); 2],
    ) -> Vec<u128>
    where
        K: Classify<Response<()>> + Clone,
    {
        let (began, sent) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&sent);
        let service = tower::service_fn(move |_: u8| {
            let is_first = seen.lock().unwrap().is_empty();
            seen.lock().unwrap().push(began.elapsed().as_millis());
            async move {
                if is_first {
                    sleep(millis(LONG)).await;
                    return Ok(Response::new(()));
                }
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                Ok::<_, BoxError>(response.body(())?)
            }
        });
        let hedge = config().max_hedges(2).classify(classify).build().unwrap();
        hedge.layer(service).oneshot(7).await.unwrap();
        sent.lock().unwrap().clone()
    }

    let pushback = |value| {
        let headers = [("grpc-status", "14"), ("grpc-retry-pushback-ms", value)];
        sent(grpc::Classifier::new(), 200, headers)
    };
    assert_eq!(pushback("-1").await, [0, 10]);
    assert_eq!(pushback("500").await, [0, 10, 510]);
    let retry_after = |status, value| {
        let headers = [("retry-after", value), ("content-length", "0")];
        sent(Classifier::new(), status, headers)
    };
    for status in [429, 503, 500] {
        assert_eq!(retry_after(status, "0").await[..2], [0, 10], "{status}");
        assert_eq!(
            retry_after(status, "2").await,
            [0, 10],
            "{status}: it is over by then"
        );
        assert_eq!(retry_after(status, "61").await, [0, 10], "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_further_hedge_comes_after_a_further_delay() {
    let leaf = Leaf::new(&[(LONG, GOOD); 4]);
    call(config().max_hedges(3), &leaf).await.0.unwrap();
    assert_eq!(leaf.sent(), [0, 10, 20, 30].map(millis));

    let leaf = Leaf::new(&[(2, End::Fails), (2, End::Fails), (LONG, GOOD), (1, GOOD)]);
    let (result, took) = call(config().max_hedges(3), &leaf).await;
    assert_eq!((result.unwrap().0, took), (4, millis(15)));
    assert_eq!(leaf.sent(), [0, 2, 4, 14].map(millis));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_sent_twice_is_sent_once() {
    struct NotIdempotent;

    impl Replay<u8> for NotIdempotent {
        fn copy(&self, request: &u8) -> Option<u8> {
            Some(*request)
        }

        fn is_idempotent(&self, _: &u8) -> bool {
            false
        }
    }

    let script = [(50, GOOD), (1, GOOD)];
    let leaf = Leaf::new(&script);
    let once = config().replay(Never).build().unwrap();
    assert_eq!(once.layer(leaf.clone()).oneshot(7).await.unwrap().0, 1);
    let leaf = Leaf::new(&script);
    let layer = config().replay(NotIdempotent).build().unwrap();
    assert_eq!(layer.layer(leaf.clone()).oneshot(7).await.unwrap().0, 1);
    assert_eq!(leaf.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn hedges_carry_the_number_of_their_attempt() {
    #[derive(Clone)]
    struct Marks(Arc<Mutex<Vec<u32>>>);

    impl Replay<u8> for Marks {
        fn copy(&self, request: &u8) -> Option<u8> {
            Some(*request)
        }

        fn set_attempt(&self, _: &mut u8, attempt: u32) {
            self.0.lock().unwrap().push(attempt);
        }
    }

    let marks = Marks(Arc::default());
    let leaf = Leaf::new(&[(LONG, GOOD); 3]);
    let layer = config()
        .max_hedges(2)
        .replay(marks.clone())
        .build()
        .unwrap();
    layer.layer(leaf.clone()).oneshot(7).await.unwrap();
    assert_eq!(*marks.0.lock().unwrap(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_would_come_after_the_deadline_is_not_sent() {
    let leaf = Leaf::new(&[(LONG, GOOD)]);
    let client = wrap(config(), &leaf);
    let deadline = Deadline::after(millis(10));
    deadline.scope(client.oneshot(7)).await.unwrap();
    assert_eq!(leaf.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_percentile_is_that_of_the_last_calls() {
    let layer = HedgeLayer::config("leaf").percentile(0.9).build().unwrap();
    let handle = layer.handle();
    for takes in 1..=99 {
        let leaf = Leaf::new(&[(takes, GOOD)]);
        layer.layer(leaf.clone()).oneshot(7).await.unwrap();
        assert_eq!(leaf.sent().len(), 1, "not enough calls are known");
    }
    assert_eq!(handle.delay(), None);
    let leaf = Leaf::new(&[(100, GOOD)]);
    layer.layer(leaf).oneshot(7).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let delay = handle.delay().unwrap();
    assert!((millis(88)..millis(93)).contains(&delay), "{delay:?}");

    let leaf = Leaf::new(&[(LONG, GOOD), (1, GOOD)]);
    layer.layer(leaf.clone()).oneshot(7).await.unwrap();
    let sent = leaf.sent()[1];
    assert!((millis(88)..millis(94)).contains(&sent), "{sent:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.delay(), None, "they are forgotten");
}

/// Ten calls a second, of which every tenth takes a second if nothing is done about it.
#[tokio::test(start_paused = true)]
async fn the_percentile_does_not_drift_because_slow_calls_are_cut_short() {
    let layer = HedgeLayer::config("leaf")
        .percentile(0.85)
        .rate_share(1.0)
        .build()
        .unwrap();
    let mut hedged = 0;
    for round in 0..1_000 {
        let takes = if round % 10 == 0 {
            LONG
        } else {
            20 + round % 7
        };
        let leaf = Leaf::new(&[(takes, GOOD), (1, GOOD)]);
        layer.layer(leaf.clone()).oneshot(7).await.unwrap();
        hedged += leaf.sent().len() - 1;
        sleep(millis(70)).await;
    }
    let delay = layer.handle().delay().unwrap();
    assert!((millis(24)..millis(27)).contains(&delay), "{delay:?}");
    assert!((80..=150).contains(&hedged), "{hedged}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_slow_altogether_is_not_hedged() {
    for mode in [Mode::Enforce, Mode::Observe] {
        stops_when_all_are_slow(config().rate_share(1.0).burst(1_000).mode(mode)).await;
    }
}

async fn stops_when_all_are_slow(config: hedge::Config) {
    let layer = config.build().unwrap();
    let calls = async |takes: u64| {
        let leaf = Leaf::new(&vec![(takes, GOOD); 1_000]);
        for _ in 0..30 {
            let client = layer.layer(leaf.clone());
            tokio::spawn(async move { client.oneshot(7).await });
            sleep(millis(33)).await;
        }
        leaf.sent().len()
    };
    for _ in 0..20 {
        assert_eq!(calls(8).await, 30);
    }
    assert!(
        calls(100).await > 40,
        "it is not known yet that all are slow"
    );
    calls(100).await;
    assert!(layer.handle().is_slowed_down());
    assert_eq!(calls(100).await, 30);
    for _ in 0..5 {
        calls(8).await;
    }
    assert!(!layer.handle().is_slowed_down());
}

#[tokio::test(start_paused = true)]
async fn hedges_are_no_more_than_their_share_of_the_calls() {
    let layer = config().build().unwrap();
    let mut hedges = 0;
    for _ in 0..1_000 {
        let leaf = Leaf::new(&[(20, GOOD); 2]);
        layer.layer(leaf.clone()).oneshot(7).await.unwrap();
        hedges += leaf.sent().len() - 1;
    }
    assert!((55..=60).contains(&hedges), "{hedges}");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_paid_from_the_budget_and_nothing_comes_back() {
    let budget = Budget::config("leaf").initial(3).build().unwrap();
    let layer = config().budget(&budget).build().unwrap();
    let slow = || {
        layer
            .layer(Leaf::new(&[(LONG, GOOD), (1, GOOD)]))
            .oneshot(7)
    };
    slow().await.unwrap();
    assert_eq!((budget.tokens(), budget.in_flight()), (10, 0));
    assert_eq!(slow().await.unwrap().0, 1, "there is no budget for it");
    // It took long, but succeeded at the first try.
    assert_eq!(budget.tokens(), 12);
    let fast = layer.layer(Leaf::new(&[]));
    for _ in 0..8 {
        fast.clone().oneshot(7).await.unwrap();
    }
    // The calls of a hedge that stands alone fill the budget.
    assert_eq!(budget.tokens(), 24);
    assert_eq!(slow().await.unwrap().0, 2);

    // The layer's own allowance is not used up by what the budget denies.
    let empty = Budget::config("leaf").initial(0).build().unwrap();
    let layer = config().burst(1).budget(&empty).build().unwrap();
    let call = || layer.layer(Leaf::new(&[(11, GOOD), (0, GOOD)])).oneshot(7);
    for _ in 0..3 {
        assert_eq!(call().await.unwrap().0, 1);
    }
    for _ in 0..10 {
        layer.layer(Leaf::new(&[])).oneshot(7).await.unwrap();
    }
    assert_eq!(call().await.unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn under_a_retry_the_budget_counts_an_operation_once() {
    let budget = Budget::new("leaf");
    let retry = RetryLayer::config("leaf").budget(&budget).build().unwrap();
    let hedge = config().budget(&budget).build().unwrap();
    let client = retry.layer(hedge.layer(Leaf::new(&[])));
    client.clone().oneshot(7).await.unwrap();
    assert_eq!((budget.tokens(), budget.in_flight()), (41, 0));
    let mut waiting = client.clone();
    let future = waiting.ready().await.unwrap().call(7);
    assert_eq!(budget.in_flight(), 1);
    drop(future);
    assert_eq!(budget.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn losers_say_nothing_about_the_service() {
    let breaker = CircuitBreakerLayer::config("leaf")
        .consecutive_failures(1)
        .build()
        .unwrap();
    let measured = counted(async || {
        for _ in 0..5 {
            let attempt = buttress::MeasureLayer::attempt("leaf");
            let inner = breaker.layer(attempt.layer(Leaf::new(&[(LONG, GOOD), (1, GOOD)])));
            config()
                .build()
                .unwrap()
                .layer(inner)
                .oneshot(7)
                .await
                .unwrap();
        }
    })
    .await;
    assert_eq!(breaker.handle().state(), State::Closed);
    assert_eq!(measured("buttress_calls_total", "cancelled"), 5);
    assert_eq!(measured("buttress_calls_total", "success"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_gives_up_all_its_attempts() {
    for pause in [0, 5, 10, 11] {
        let budget = Budget::new("leaf");
        let leaf = Leaf::new(&[(LONG, End::Hangs), (LONG, End::Hangs)]);
        let client = wrap(config().budget(&budget), &leaf);
        assert!(timeout(millis(pause), client.oneshot(7)).await.is_err());
        let dropped = leaf
            .events()
            .iter()
            .filter(|event| matches!(event, Event::Dropped(_)))
            .count();
        assert_eq!(dropped, leaf.sent().len());
        assert_eq!(budget.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_hedge_is_counted_once() {
    let count = async |script: &[(u64, End)], config: hedge::Config| {
        let measured = counted(async || {
            drop(wrap(config, &Leaf::new(script)).oneshot(7).await);
        })
        .await;
        let results = ["won", "lost", "failed", "denied_budget", "denied_slowdown"];
        results.map(|result| measured("buttress_hedges_total", result))
    };
    let none = Budget::config("leaf").initial(0).build().unwrap();
    assert_eq!(count(&[(9, GOOD)], config()).await, [0, 0, 0, 0, 0]);
    assert_eq!(
        count(&[(50, GOOD), (1, GOOD)], config()).await,
        [1, 0, 0, 0, 0]
    );
    assert_eq!(
        count(&[(12, GOOD), (9, GOOD)], config()).await,
        [0, 1, 0, 0, 0]
    );
    assert_eq!(
        count(&[(50, GOOD), (1, End::Fails)], config()).await,
        [0, 0, 1, 0, 0]
    );
    assert_eq!(
        count(&[(50, GOOD), (1, End::Refused)], config()).await,
        [0, 0, 1, 0, 0]
    );
    let script = [(50, GOOD), (50, GOOD), (1, GOOD)];
    assert_eq!(
        count(&script, config().max_hedges(2)).await,
        [1, 1, 0, 0, 0]
    );
    assert_eq!(
        count(&[(50, GOOD)], config().budget(&none)).await,
        [0, 0, 0, 1, 0]
    );
    let observed = config().budget(&none).mode(Mode::Observe);
    assert_eq!(
        count(&[(50, GOOD), (1, GOOD)], observed).await,
        [1, 0, 0, 1, 0]
    );
}

#[tokio::test(start_paused = true)]
async fn the_mode_changes_while_the_hedge_runs() {
    let config = HedgeLayer::config("switch").delay(millis(10)).burst(1);
    let layer = config.rate_share(0.001).build().unwrap();
    let sent = async || {
        let leaf = Leaf::new(&[(50, GOOD), (1, GOOD)]);
        layer.layer(leaf.clone()).oneshot(7).await.unwrap();
        leaf.sent().len()
    };
    assert_eq!(sent().await, 2, "the burst");
    for (mode, attempts) in [(Mode::Observe, 2), (Mode::Enforce, 1), (Mode::Observe, 2)] {
        layer.handle().set_mode(mode);
        assert_eq!(sent().await, attempts, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_published_even_if_there_is_a_call_now_and_then() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = HedgeLayer::config("quiet").min_samples(1).build().unwrap();
    for _ in 0..2 {
        layer.layer(Leaf::new(&[])).oneshot(7).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    let mut rows = recorded::rows(&snapshotter);
    let gauge = rows.find(|row| row.metric == "buttress_hedge_delay_seconds");
    let delay = gauge.unwrap().value;
    assert!((0.0009..0.0011).contains(&delay), "{delay}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_over_holds_nothing_though_its_future_is_kept() {
    let budget = Budget::config("leaf").initial(3).build().unwrap();
    let mut client = wrap(
        config().budget(&budget),
        &Leaf::new(&[(LONG, GOOD), (1, GOOD)]),
    );
    let mut future = Box::pin(client.ready().await.unwrap().call(7));
    future.as_mut().await.unwrap();
    assert_eq!(budget.in_flight(), 0);
}

/// A stack that hedges after the delay, and does no more.
fn hedged_stack() -> Standard {
    let stack = standard("leaf").no_retry().no_circuit_breaker();
    stack.hedge(|hedge| hedge.delay(DELAY))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_a_queue_of_the_stack_is_not_slow() {
    let budget = Budget::new("leaf");
    let bulkhead = hedged_stack().bulkhead(1, |bulkhead| bulkhead.queue(9));
    let rate = Rate::per(1, millis(50));
    let limited = hedged_stack().unlimited();
    let limited = limited.rate_limit(rate, |limit| limit.burst(1).max_wait(millis(500)));
    let leaf = Leaf::new(&[(9, GOOD); 9]);
    for stack in [bulkhead, limited] {
        let client = stack.budget(&budget).build().unwrap().wrap(leaf.clone());
        let (began, tokens) = (Instant::now(), budget.tokens());
        let (one, two) = (client.clone().oneshot(7), client.oneshot(7));
        let (one, two) = tokio::join!(one, two);
        one.unwrap();
        two.unwrap();
        assert!(began.elapsed() > DELAY);
        assert_eq!(budget.tokens(), tokens + 2, "a copy costs 20");
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_begins_when_the_attempt_is_sent() {
    let rate = Rate::per(1, millis(5));
    let stack = hedged_stack().unlimited();
    let stack = stack.rate_limit(rate, |limit| limit.burst(1).max_wait(millis(500)));
    // The second line is given up with the readiness of the handle that has to wait.
    let leaf = Leaf::new(&[(1, GOOD), (1, GOOD), (LONG, GOOD), (1, GOOD)]);
    let client = stack.build().unwrap().wrap(leaf.clone());
    let (one, two) = (client.clone().oneshot(7), client.oneshot(7));
    let (one, two) = tokio::join!(one, two);
    one.unwrap();
    assert_eq!(two.unwrap().0, 4);
    assert_eq!(leaf.sent(), [0, 5, 15].map(millis));
}

#[tokio::test(start_paused = true)]
async fn over_a_buffer_the_budget_counts_an_operation_once() {
    let tokens = async |is_buffered: bool| {
        let budget = Budget::config("leaf").initial(5).build().unwrap();
        let retry = RetryLayer::config("leaf").budget(&budget).build().unwrap();
        let hedge = config().budget(&budget).build().unwrap();
        for _ in 0..10 {
            let inner = hedge.layer(Leaf::new(&[]));
            if is_buffered {
                retry.layer(Buffer::new(inner, 8)).oneshot(7).await.unwrap();
            } else {
                retry.layer(inner).oneshot(7).await.unwrap();
            }
        }
        (budget.tokens(), budget.in_flight())
    };
    assert_eq!(tokens(false).await, (60, 0));
    assert_eq!(tokens(true).await, (60, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_never_began_does_not_hold_up_a_failure() {
    let leaf = Leaf::new(&[(50, End::Fails), (0, End::NotReady)]);
    let (result, took) = call(config(), &leaf).await;
    assert_eq!(
        result.unwrap_err().service_error().unwrap().to_string(),
        "attempt 1 failed"
    );
    assert_eq!(took, millis(50));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_further_in_is_not_paid_for() {
    let budget = Budget::new("leaf");
    let layer = config().budget(&budget).burst(1).build().unwrap();
    for calls in 1..=3 {
        let leaf = Leaf::new(&[(50, GOOD), (1, End::Refused)]);
        layer.layer(leaf.clone()).oneshot(7).await.unwrap();
        assert_eq!((leaf.sent().len(), budget.tokens()), (2, 20 + calls));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_woken_late_does_not_send_all_hedges_at_once() {
    let leaf = Leaf::new(&[(LONG, GOOD); 4]);
    let mut client = wrap(config().max_hedges(3), &leaf);
    let mut future = Box::pin(client.ready().await.unwrap().call(7));
    assert!(timeout(millis(1), &mut future).await.is_err());
    advance(millis(60)).await;
    assert!(timeout(millis(1), &mut future).await.is_err());
    assert_eq!(leaf.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_further_in_ends_an_attempt_and_one_further_out_the_call() {
    let script = [(LONG, End::Hangs), (LONG, End::Hangs)];
    let inner = TimeoutLayer::new("leaf", millis(30)).layer(Leaf::new(&script));
    let began = Instant::now();
    let error = config()
        .build()
        .unwrap()
        .layer(inner)
        .oneshot(7)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), millis(40));

    let leaf = Leaf::new(&script);
    let client = TimeoutLayer::new("leaf", millis(30)).layer(wrap(config(), &leaf));
    client.oneshot(7).await.unwrap_err();
    assert_eq!(began.elapsed(), millis(70));
    let dropped = leaf
        .events()
        .iter()
        .filter(|event| matches!(event, Event::Dropped(_)))
        .count();
    assert_eq!(dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn values_out_of_range_are_refused_with_their_field() {
    let field = |config: hedge::Config| config.build().unwrap_err().field();
    let new = || HedgeLayer::config("leaf");
    assert_eq!(field(HedgeLayer::config("")), "name");
    assert_eq!(field(new().delay(Duration::ZERO)), "delay");
    assert_eq!(field(new().delay(Duration::MAX)), "delay");
    for share in [0.0, 0.49, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(field(new().percentile(share)), "percentile");
    }
    assert_eq!(field(new().window(Duration::ZERO)), "window");
    assert_eq!(field(new().window(millis(29))), "window");
    assert_eq!(field(new().min_samples(0)), "min_samples");
    assert_eq!(field(new().max_hedges(0)), "max_hedges");
    assert_eq!(field(new().max_hedges(11)), "max_hedges");
    for share in [0.0, 1.1, f64::NAN] {
        assert_eq!(field(new().rate_share(share)), "rate_share");
    }
    assert_eq!(field(new().burst(0)), "burst");
    for factor in [1.0, 0.0, f64::NAN, f64::INFINITY] {
        assert_eq!(field(new().slowdown(factor)), "slowdown");
    }
    let error = new().percentile(2.0).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "hedge \"leaf\": percentile is 2.0, but must be 0.5 to 0.9999"
    );
}

/// Runs `work`, and returns what a metric of it counted by a label's value.
async fn counted(work: impl AsyncFnOnce()) -> impl Fn(&str, &str) -> u64 {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    work().await;
    advance(Duration::ZERO).await;
    let rows: Vec<_> = recorded::rows(&snapshotter).collect();
    move |metric, value| {
        let rows = rows
            .iter()
            .filter(|row| row.metric == metric && row.is_of(value));
        rows.map(|row| row.value as u64).sum()
    }
}

#[test]
fn a_closure_can_judge() {
    let classify = classify_fn(|_: Result<&u8, &Error>| Outcome::Success);
    let layer = HedgeLayer::config("leaf")
        .classify(classify)
        .build()
        .unwrap();
    let _service = layer.wrap(tower::service_fn(async |_: u8| Ok::<_, BoxError>(1)));
}
