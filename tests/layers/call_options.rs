//! Settings of one call, for plain services and functions.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::balance::{Balance, Endpoint, RoundRobin};
use buttress::bulkhead::Aimd;
use buttress::circuit_breaker::State;
use buttress::client::CallError;
use buttress::stack::{Standard, StandardService};
use buttress::{
    BoxError, CallOptions, Deadline, Error, ErrorKind, GaveUp, Replay, client, standard,
};
use tokio::time::{Instant, sleep};
use tower::{Service, service_fn};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Standard {
    standard("stock").unlimited().seed(1)
}

fn options() -> CallOptions {
    CallOptions::new()
}

/// Counts the attempts of a service that answers after this time.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicU32>);

impl Attempts {
    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }

    fn service(
        &self,
        time: Duration,
        answer: fn() -> Result<(), BoxError>,
    ) -> impl Service<u8, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + use<>
    {
        let count = Arc::clone(&self.0);
        service_fn(move |_: u8| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(time).await;
                answer()
            }
        })
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is an answer beside `fails`")]
fn well() -> Result<(), BoxError> {
    Ok(())
}

fn fails() -> Result<(), BoxError> {
    Err("connection reset".into())
}

/// Returns the result of a call, and how long it took.
async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = call.await;
    (result, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_call_takes_the_place_of_that_of_the_stack() {
    let attempts = Attempts::default();
    for (of_stack, own, service, ends) in [
        (Some(2 * SECOND), 100 * MS, 3 * SECOND, Err(100 * MS)),
        (Some(2 * SECOND), 4 * SECOND, 3 * SECOND, Ok(3 * SECOND)),
        (Some(2 * SECOND), 30 * SECOND, 20 * SECOND, Ok(20 * SECOND)),
        (Some(2 * SECOND), 30 * SECOND, 40 * SECOND, Err(30 * SECOND)),
        (None, 100 * MS, 3 * SECOND, Err(100 * MS)),
        (None, Duration::MAX, 20 * SECOND, Ok(20 * SECOND)),
    ] {
        let layer = match of_stack {
            Some(timeout) => config().timeout(timeout),
            None => config().no_timeout(),
        };
        let stock = layer.build().unwrap().wrap(attempts.service(service, well));
        let call = stock.with(options().timeout(own).no_retry()).send(1);
        let (result, took) = timed(call).await;
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Timeout);
        }
        let end = result.map(|()| took).map_err(|_| took);
        assert_eq!(end, ends, "{of_stack:?} {own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_at_the_timeout_of_its_call_is_made_again() {
    let attempts = Attempts::default();
    let layer = config().build().unwrap();
    let stock = layer.wrap(attempts.service(SECOND, well));
    let call = stock.with(options().timeout(100 * MS)).send(1);
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.attempts(), Some(3));
    assert_eq!(attempts.take(), 3);
    stock.send(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_soonest_of_the_deadlines_counts() {
    let attempts = Attempts::default();
    let (soon, late, latest) = (SECOND, 2 * SECOND, 3 * SECOND);
    for (of_stack, inherited, own) in [
        (soon, late, latest),
        (late, soon, latest),
        (late, latest, soon),
        (latest, late, soon),
    ] {
        let layer = config().deadline(of_stack).timeout(900 * MS);
        let stock = layer
            .build()
            .unwrap()
            .wrap(attempts.service(50 * SECOND, well));
        let call = stock.with(options().deadline(own).timeout(5 * SECOND));
        let call = Deadline::after(inherited).scope(call.send(1));
        let (result, took) = timed(call).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(took, soon, "{of_stack:?} {inherited:?} {own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_zero_refuses_the_call() {
    let attempts = Attempts::default();
    let stock = config().build().unwrap().wrap(attempts.service(MS, well));
    let call = stock.with(options().deadline(Duration::ZERO)).send(1);
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(attempts.take(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_is_that_of_what_is_called_inside() {
    let client = service_fn(async |_: u8| {
        let deadline = Deadline::current();
        Ok::<_, BoxError>(deadline.map(Deadline::remaining))
    });
    let stock = config().build().unwrap().wrap(client);
    let call = stock.with(options().deadline(SECOND)).send(1);
    assert_eq!(call.await.unwrap(), Some(SECOND));
    assert_eq!(stock.send(1).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_retry_makes_one_attempt() {
    let attempts = Attempts::default();
    let layer = config().build().unwrap();
    let budget = layer.handle().budget().clone();
    let tokens = budget.tokens();
    let stock = layer.wrap(attempts.service(MS, fails));
    let error = stock.with(options().no_retry()).send(1).await.unwrap_err();
    assert_eq!(attempts.take(), 1);
    assert_eq!(
        (error.attempts(), error.gave_up()),
        (Some(1), Some(GaveUp::Exhausted))
    );
    assert_eq!(budget.tokens(), tokens);
    stock.send(1).await.unwrap_err();
    assert_eq!(attempts.take(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_hedge_sends_no_copy() {
    let attempts = Attempts::default();
    let layer = config().hedge(|hedge| hedge.delay(20 * MS));
    let stock = layer.build().unwrap().wrap(attempts.service(SECOND, well));
    stock.with(options().no_hedge()).send(1).await.unwrap();
    assert_eq!(attempts.take(), 1);
    // Nor one that may be acted on twice.
    let call = stock.with(options().no_hedge().idempotent(true));
    call.send(1).await.unwrap();
    assert_eq!(attempts.take(), 1);
    stock.with(options().no_retry()).send(1).await.unwrap();
    assert_eq!(attempts.take(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_without_retry_does_not_repeat_a_call_without_retry_at_once() {
    let attempts = Attempts::default();
    let layer = config().no_retry().hedge(|hedge| hedge.delay(SECOND));
    let stock = layer.build().unwrap().wrap(attempts.service(MS, fails));
    let call = stock.with(options().no_retry()).send(1);
    call.await.unwrap_err();
    assert_eq!(attempts.take(), 1);
    stock.send(1).await.unwrap_err();
    assert_eq!(attempts.take(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_says_whether_it_may_be_acted_on_twice() {
    let db = client("db").unlimited().build().unwrap();
    let calls = AtomicU32::new(0);
    let fails = || async {
        calls.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    let taken = || calls.swap(0, Ordering::Relaxed);
    let once = db.with(options().idempotent(false));
    once.run(fails).await.unwrap_err();
    assert_eq!(taken(), 1);
    let often = db.with(options().idempotent(true));
    often.run_once(fails).await.unwrap_err();
    assert_eq!(taken(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_act_twice_is_not_hedged() {
    let attempts = Attempts::default();
    let layer = config().hedge(|hedge| hedge.delay(20 * MS));
    let stock = layer.build().unwrap().wrap(attempts.service(SECOND, well));
    let call = stock.with(options().idempotent(false)).send(1);
    call.await.unwrap();
    assert_eq!(attempts.take(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_says_whether_its_answer_is_a_stream() {
    let attempts = Attempts::default();
    for (declared, own, deadline, ends) in [
        (false, Some(true), None, 3),
        (true, Some(false), None, 1),
        (true, None, None, 3),
        (false, None, None, 1),
        (false, Some(true), Some(2 * SECOND), 2),
    ] {
        let layer = config().no_timeout().deadline(SECOND);
        let layer = layer.streaming(move |_: &u8| declared).build().unwrap();
        let stock = layer.wrap(attempts.service(3 * SECOND, well));
        let mut call = options();
        if let Some(is_stream) = own {
            call = call.stream(is_stream);
        }
        if let Some(deadline) = deadline {
            call = call.deadline(deadline);
        }
        let (_, took) = timed(stock.with(call).send(1)).await;
        assert_eq!(took.as_secs(), ends, "{declared} {own:?} {deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_are_not_inherited_by_calls_inside() {
    let inner = client("inner").unlimited().build().unwrap();
    let outer = client("outer").unlimited().build().unwrap();
    let call = outer.with(options().timeout(8 * SECOND).no_retry());
    let (result, took) = timed(call.run(|| inner.run(pending::<Result<(), io::Error>>))).await;
    let Err(CallError::Inner(CallError::Stack(error))) = result else {
        panic!("the outer one has ended the call");
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(took.as_secs(), 2, "the inner timeout");
}

#[tokio::test(start_paused = true)]
async fn a_request_of_any_type_may_have_options() {
    #[derive(Clone)]
    struct Order(Option<CallOptions>);

    struct OfOrders;

    impl Replay<Order> for OfOrders {
        fn copy(&self, order: &Order) -> Option<Order> {
            Some(order.clone())
        }

        fn call_options(&self, order: &Order) -> Option<CallOptions> {
            order.0
        }
    }

    let hangs = service_fn(|_: Order| pending::<Result<(), BoxError>>());
    let layer = config().replay(OfOrders).no_retry().build().unwrap();
    let orders = layer.wrap(hangs);
    let fast = options().timeout(100 * MS);
    let took = async |call| timed(call).await.1;
    assert_eq!(took(orders.send(Order(None))).await, 2 * SECOND);
    assert_eq!(took(orders.send(Order(Some(fast)))).await, 100 * MS);
    // Options of `with` take the place of those of the request.
    let slow = orders.with(options().timeout(SECOND));
    let (_, took) = timed(slow.send(Order(Some(fast)))).await;
    assert_eq!(took, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_options_runs_in_a_spawned_task() {
    let db = client("db").concurrency_limit(1).build().unwrap();
    let handle = db.handle();
    let task = tokio::spawn(async move {
        let db = db.with(options().timeout(SECOND));
        db.run(async || Err::<(), Error>(pending().await)).await
    });
    sleep(MS).await;
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 1);
    task.abort();
    task.await.unwrap_err();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
}

/// Calls with these options, 10 ms apart, whose results do not matter.
async fn send<S>(stock: &StandardService<S>, options: CallOptions, calls: u32)
where
    S: Service<u8, Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..calls {
        tasks.spawn(stock.with(options).send(1));
        sleep(10 * MS).await;
    }
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_with_too_little_time_do_not_open_the_breaker() {
    let attempts = Attempts::default();
    let hasty = options().timeout(MS);
    for (case, layer) in [("timeout", config()), ("no timeout", config().no_timeout())] {
        let layer = layer.build().unwrap();
        let handle = layer.handle();
        let stock = layer.wrap(attempts.service(20 * MS, well));
        for _ in 0..100 {
            // Others are served meanwhile.
            stock.send(1).await.unwrap();
            send(&stock, hasty, 10).await;
        }
        let breaker = handle.circuit_breaker().unwrap();
        assert_eq!(breaker.state(), State::Closed, "{case}");
        stock.send(1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_with_too_little_time_do_not_open_the_breaker() {
    let attempts = Attempts::default();
    let layer = config().no_retry();
    let layer = layer.circuit_breaker(|breaker| breaker.consecutive_failures(1));
    let layer = layer.hedge(|hedge| hedge.delay(10 * MS)).build().unwrap();
    let handle = layer.handle();
    let stock = layer.wrap(attempts.service(40 * MS, well));
    let call = stock.with(options().timeout(20 * MS)).send(1);
    call.await.unwrap_err();
    assert!(attempts.take() >= 2);
    let breaker = handle.circuit_breaker().unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn calls_with_too_little_time_shrink_no_adaptive_limit() {
    let attempts = Attempts::default();
    let layer = standard("stock")
        .concurrency_limit(Aimd::between(1, 50))
        .seed(1);
    let layer = layer.build().unwrap();
    let handle = layer.handle();
    let stock = layer.wrap(attempts.service(20 * MS, well));
    let limit = || handle.bulkhead().unwrap().limit();
    let before = limit();
    send(&stock, options().timeout(MS).no_retry(), 1_000).await;
    assert!(limit() >= before, "{} of {before}", limit());
}

#[tokio::test(start_paused = true)]
async fn calls_with_too_little_time_eject_no_endpoint() {
    let attempts = Attempts::default();
    let times = [("slow", 20 * MS), ("b", MS / 2), ("c", MS / 2)];
    let endpoints = times.map(|(key, time)| Endpoint::new(key, attempts.service(time, well)));
    let balance = Balance::config("stock").choose(RoundRobin);
    let balance = balance.build(endpoints).unwrap();
    let hosts = balance.handle();
    let stock = config().no_circuit_breaker().build().unwrap().wrap(balance);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3_000 {
        tasks.spawn(stock.with(options().timeout(MS)).send(1));
        sleep(10 * MS).await;
        assert!(hosts.endpoints().iter().all(|host| host.ejections == 0));
    }
    tasks.join_all().await;
    stock.send(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_that_bring_enough_time_open_the_breaker_of_a_service_that_hangs() {
    let attempts = Attempts::default();
    for time in [500 * MS, 5 * SECOND] {
        let layer = config().build().unwrap();
        let handle = layer.handle();
        let stock = layer.wrap(attempts.service(20 * MS, well));
        stock.send(1).await.unwrap();
        let stock = layer.wrap(attempts.service(100 * SECOND, well));
        send(&stock, options().timeout(time).no_retry(), 100).await;
        let breaker = handle.circuit_breaker().unwrap();
        assert_ne!(breaker.state(), State::Closed, "{time:?}");
    }
}
