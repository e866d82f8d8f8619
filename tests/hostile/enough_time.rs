//! A call is evidence about a service only if the service had enough time for it.

use std::time::Duration;

use buttress::balance::{Endpoint, RoundRobin};
use buttress::bulkhead::Aimd;
use buttress::circuit_breaker::{Handle, State};
use buttress::http::{
    CompleteOnBodyEnd, HttpStandardLayer, HttpStandardService, PropagateDeadlineLayer, grpc,
};
use buttress::{BoxError, CircuitBreakerLayer, Deadline};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::callers::{
    self, Body, Losses, MS, Patience, SECOND, Sent, answer, call_for, get, request, service, told,
};
use crate::feed::{Feed, feed};

/// The most that honest callers may lose, in percent.
const MAX_LOSS: f64 = 0.5;
const FOREVER: Duration = Duration::from_secs(3_600);

fn stack() -> HttpStandardLayer {
    let stack = buttress::http::standard("honest").unlimited().seed(1);
    stack.build().unwrap()
}

fn breaker(stack: &HttpStandardLayer) -> Handle {
    stack.handle().circuit_breaker().unwrap().clone()
}

#[track_caller]
fn assert_few_losses(losses: &Losses, case: &str) {
    let percent = losses.percent();
    assert!(
        percent <= MAX_LOSS,
        "{case}: honest callers lose {percent} %"
    );
}

/// Callers of whom `share` bring `patience`, for 20 s.
async fn harm<S, B>(client: &S, share: f64, patience: Patience) -> Losses
where
    S: Service<Request<Body>, Response = Response<B>, Future: Send, Error: Send>
        + Clone
        + Send
        + 'static,
    B: Send + 'static,
{
    call_for(client, 20 * SECOND, 1, |draw| {
        let is_harmful = draw < share;
        (get("/"), if is_harmful { patience } else { Patience::Full })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn callers_with_less_time_than_any_answer_takes_do_not_open_the_breaker_for_others() {
    for (time, share, patience) in [
        (20 * MS, 0.7, Patience::Deadline(12 * MS)),
        (20 * MS, 0.98, Patience::Deadline(12 * MS)),
        (20 * MS, 0.7, Patience::Drops(12 * MS)),
        (300 * MS, 0.7, Patience::Deadline(210 * MS)),
        (300 * MS, 0.7, Patience::Drops(210 * MS)),
    ] {
        let (client, _) = service(move |_, _| (time, answer(200)));
        let losses = harm(&stack().wrap(client), share, patience).await;
        assert_few_losses(&losses, &format!("{time:?}, {share}, {patience:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn callers_with_too_little_time_for_a_slow_path_do_not_open_the_breaker_for_others() {
    for patience in [100 * MS, 300 * MS] {
        let (client, _) = service(|request: &Request<Body>, _| {
            let is_slow = request.uri().path() == "/slow";
            (if is_slow { 500 * MS } else { 20 * MS }, answer(200))
        });
        let client = stack().wrap(client);
        let losses = call_for(&client, 20 * SECOND, 1, |draw| {
            if draw < 0.7 {
                (get("/slow"), Patience::Deadline(patience))
            } else {
                (get("/"), Patience::Full)
            }
        });
        assert_few_losses(&losses.await, &format!("{patience:?}"));
    }
}

/// An answer that is good for HTTP, with a status of gRPC.
fn grpc_answer(status: &'static str) -> Response<Body> {
    let answer = Response::builder().header("grpc-status", status);
    answer.body(Body::default()).unwrap()
}

/// A server of 20 ms that ends a call with `status` at its deadline, so many milliseconds sooner or later.
fn server(
    milliseconds: i32,
    status: fn() -> Response<Body>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service(move |request: &Request<Body>, _| {
        let by = MS * milliseconds.unsigned_abs();
        let at = told(request).map(|told| {
            if milliseconds < 0 {
                told.saturating_sub(by)
            } else {
                told + by
            }
        });
        match at.filter(|at| *at < 20 * MS) {
            Some(at) => (at, status()),
            None => (20 * MS, grpc_answer("0")),
        }
    })
    .0
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_calls_at_their_deadline_itself_is_not_taken_for_one_that_fails() {
    for (by, slack) in [
        (0, 0),
        (-1, 0),
        (-5, 0),
        (-11, 0),
        (1, 0),
        (5, 0),
        (0, 1),
        (0, 5),
    ] {
        let propagate = PropagateDeadlineLayer::config("honest").slack(MS * slack);
        let propagate = propagate.build().unwrap();
        let empty = || answer(504);
        let told = || answer(504).map(|_| Body::from("upstream request timeout"));
        for answer in [empty as fn() -> Response<Body>, told] {
            let client = propagate.layer(server(by, answer));
            let losses = harm(&stack().wrap(client), 0.7, Patience::Deadline(12 * MS)).await;
            assert_few_losses(&losses, &format!("504 after {by} ms, slack {slack} ms"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_calls_at_their_deadline_itself_does_not_open_the_breaker() {
    for slack in [0, 1, 5] {
        let propagate = PropagateDeadlineLayer::config("honest").slack(MS * slack);
        // As a tonic channel does.
        let client = propagate.build().unwrap().layer(tower::service_fn(
            |request: Request<Body>| async move {
                let told = told(&request).filter(|told| *told < 20 * MS);
                sleep(told.unwrap_or(20 * MS)).await;
                match told {
                    Some(_) => Err(BoxError::from("cancelled")),
                    None => Ok(answer(200)),
                }
            },
        ));
        let losses = harm(&stack().wrap(client), 0.7, Patience::Deadline(12 * MS)).await;
        assert_few_losses(&losses, &format!("slack {slack} ms"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_that_ends_calls_at_their_deadline_is_not_taken_for_one_that_fails() {
    let stack = callers::grpc("honest");
    let client = ServiceBuilder::new()
        .layer(stack.build().unwrap())
        .layer(PropagateDeadlineLayer::new("honest"))
        .service(server(-2, || grpc_answer("4")));
    // As answers of HTTP, those with a status of gRPC are all good.
    let losses = call_for(&client, 20 * SECOND, 1, |draw| {
        if draw < 0.7 {
            (get("/"), Patience::Deadline(12 * MS))
        } else {
            (get("/"), Patience::Full)
        }
    });
    assert_few_losses(&losses.await, "DEADLINE_EXCEEDED");
}

/// A server whose answers end after a time with a status of gRPC, by the time that the caller brings.
fn grpc_server(
    end: fn(Option<Duration>) -> (Duration, &'static str),
) -> impl Service<Request<Body>, Response = Response<Feed>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |_: Request<Body>| async move {
        let (time, status) = end(Deadline::current().map(Deadline::remaining));
        sleep(5 * MS).await;
        let (source, body) = feed();
        tokio::spawn(async move {
            sleep(time.saturating_sub(5 * MS)).await;
            source.trailers("grpc-status", status);
        });
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok::<_, BoxError>(answer.body(body)?)
    })
}

/// Makes a call with a deadline, and reads its answer.
async fn read<S, B>(client: &S, deadline: Duration)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: http_body::Body,
{
    let call = async {
        if let Ok(answer) = client.clone().oneshot(request("POST")).await {
            drop(answer.into_body().collect().await);
        }
    };
    Deadline::after(deadline).scope(call).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_trailers_tell_of_counts_against_nobody_if_the_caller_brought_it() {
    let server = grpc_server(|left| match left {
        Some(left) if left <= 50 * MS => (40 * MS, "4"),
        _ => (60 * MS, "0"),
    });
    let endpoints = [1, 2, 3, 4].map(|number| Endpoint::new(number.to_string(), server.clone()));
    let balance = grpc::balance("honest").seed(1).build(endpoints).unwrap();
    let breaker = CircuitBreakerLayer::config("honest")
        .classify(grpc::Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap();
    let client = breaker.wrap(balance.clone());
    for call in 0..400 {
        let is_patient = call % 10 == 0;
        read(&client, if is_patient { FOREVER } else { 50 * MS }).await;
        let endpoints = balance.handle().endpoints();
        assert!(
            endpoints.iter().all(|one| one.is_selectable),
            "{endpoints:?}"
        );
    }
    let failures = balance.handle().endpoints();
    let failures = failures.iter().map(|one| one.failure_share);
    assert!(failures.clone().all(|share| share < 0.01));
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_far_off_is_no_excuse_for_a_service_that_tells_of_it_in_trailers() {
    for (end, expected) in [
        ((|_| (15 * MS, "4")) as fn(_) -> _, State::Open),
        // It has nearly come.
        (|_| (59_500 * MS, "4"), State::Closed),
    ] {
        let stack = callers::grpc("ledger")
            .deadline(60 * SECOND)
            .timeout(2 * SECOND);
        let stack = stack.build().unwrap();
        let client = stack.wrap(grpc_server(end));
        let calls = (0..40).map(|_| read(&client, FOREVER));
        futures::future::join_all(calls).await;
        assert_eq!(stack.handle().circuit_breaker().unwrap().state(), expected);
    }
}

/// Calls a service that hangs for everybody, after `health`. Returns how many requests reach it before the breaker opens.
async fn leak(health: Duration, patience: Patience) -> u32 {
    let (client, sent) = service(move |_: &Request<Body>, now| {
        let is_well = now < health;
        (if is_well { 20 * MS } else { FOREVER }, answer(200))
    });
    leak_of(client, sent, health, patience).await
}

async fn leak_of<S>(client: S, sent: Sent, health: Duration, patience: Patience) -> u32
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let stack = stack();
    let client = stack.wrap(client);
    if !health.is_zero() {
        call_for(&client, health, 1, |_| (get("/"), Patience::Full)).await;
    }
    let (before, breaker) = (sent.count(), breaker(&stack));
    let calls = tokio::spawn(async move {
        call_for(&client, 20 * SECOND, 1, |_| (get("/"), patience)).await;
    });
    let began = Instant::now();
    while breaker.state() == State::Closed && began.elapsed() < 20 * SECOND {
        sleep(MS).await;
    }
    calls.abort();
    sent.count() - before
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_for_everybody_is_refused_soon_whatever_time_callers_bring() {
    let health = 10 * SECOND;
    for (patience, most) in [
        (Patience::Deadline(500 * MS), 110),
        (Patience::Drops(500 * MS), 110),
        (Patience::Deadline(1_900 * MS), 240),
        (Patience::Drops(1_900 * MS), 240),
        (Patience::Full, 260),
    ] {
        let leaked = leak(health, patience).await;
        assert!(leaked <= most, "{patience:?}: {leaked}");
        let leaked = leak(Duration::ZERO, patience).await;
        assert!(
            leaked <= most + 200,
            "from a cold start, {patience:?}: {leaked}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_504_to_everybody_is_refused_whatever_time_callers_bring() {
    let health = 10 * SECOND;
    for (patience, most) in [(Patience::Full, 110), (Patience::Deadline(500 * MS), 1_200)] {
        let (client, sent) = service(move |_: &Request<Body>, now| {
            let is_well = now < health;
            (20 * MS, answer(if is_well { 200 } else { 504 }))
        });
        let leaked = leak_of(client, sent, health, patience).await;
        assert!(leaked <= most, "{patience:?}: {leaked}");
    }
}

/// The mean time until patient callers are served again, after a minute of hanging.
async fn recovery(share: f64) -> Duration {
    let (healthy, hangs) = (10 * SECOND, 70 * SECOND);
    let mut sum = Duration::ZERO;
    for seed in 0..20 {
        let (client, _) = service(move |_: &Request<Body>, now| {
            let is_well = now < healthy || now >= hangs;
            (if is_well { 300 * MS } else { FOREVER }, answer(200))
        });
        let stack = buttress::http::standard("slow").unlimited().seed(seed);
        let client: HttpStandardService<_> = stack.build().unwrap().wrap(client);
        let (began, crowd) = (Instant::now(), client.clone());
        let calls = tokio::spawn(async move {
            call_for(&crowd, 120 * SECOND, seed, |draw| {
                if draw < share {
                    (get("/"), Patience::Deadline(250 * MS))
                } else {
                    (get("/"), Patience::Full)
                }
            })
            .await;
        });
        sleep(hangs).await;
        // Five good calls in a row of a caller that makes one after the other.
        let mut row = 0;
        while row < 5 {
            let call = client.clone().oneshot(get("/"));
            row = if call.await.is_ok() { row + 1 } else { 0 };
            sleep(10 * MS).await;
        }
        sum += began.elapsed().saturating_sub(hangs);
        calls.abort();
    }
    sum / 20
}

#[tokio::test(start_paused = true)]
async fn patient_callers_are_served_soon_after_an_outage_although_others_have_no_time() {
    let (half, most) = (recovery(0.5).await, recovery(0.7).await);
    assert!(half <= 6 * SECOND, "{half:?}");
    assert!(most <= 10 * SECOND, "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_by_itself_needs_no_timeout_to_see_a_service_that_hangs() {
    let layer = CircuitBreakerLayer::config("hung")
        .min_calls(20)
        .build()
        .unwrap();
    let handle = layer.handle();
    let (client, _) = service(|_: &Request<Body>, _| (FOREVER, answer(200)));
    let client = ServiceBuilder::new()
        .layer(buttress::DeadlineLayer::new("hung", 500 * MS))
        .layer(layer)
        .service(client);
    for _ in 0..4 {
        let calls = (0..20).map(|_| tokio::spawn(client.clone().oneshot(request("GET"))));
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap_err();
        }
        sleep(SECOND).await;
    }
    assert_eq!(handle.state(), State::Open);
}

/// The adaptive limit of a service of 20 ms that is well for 10 s, after 10 s more in which it hangs if that `hangs`.
async fn limit_after(hangs: bool, share: f64, patience: Patience) -> usize {
    let (client, _) = service(move |_: &Request<Body>, now| {
        let is_well = !hangs || now < 10 * SECOND;
        (if is_well { 20 * MS } else { FOREVER }, answer(200))
    });
    let stack = buttress::http::standard("adaptive").no_circuit_breaker();
    let stack = stack.concurrency_limit(Aimd::between(5, 200).initial(100));
    let stack = stack.build().unwrap();
    let client = stack.wrap(client);
    call_for(&client, 20 * SECOND, 1, |draw| {
        if draw < share {
            (get("/"), patience)
        } else {
            (get("/"), Patience::Full)
        }
    })
    .await;
    stack.handle().bulkhead().unwrap().limit()
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_shrinks_for_callers_that_brought_enough_time_alone() {
    for patience in [Patience::Deadline(500 * MS), Patience::Drops(500 * MS)] {
        let limit = limit_after(true, 1.0, patience).await;
        assert!(limit <= 50, "{limit}, {patience:?}");
    }
    for patience in [Patience::Deadline(12 * MS), Patience::Drops(12 * MS)] {
        let limit = limit_after(false, 0.9, patience).await;
        assert!(limit >= 100, "{limit}, {patience:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_is_no_evidence() {
    let stack = stack();
    let (client, sent) = service(|_: &Request<Body>, _| (20 * MS, answer(200)));
    let client = stack.wrap(client);
    for _ in 0..100 {
        let call = client.clone().oneshot(request("GET"));
        Deadline::after(Duration::ZERO)
            .scope(call)
            .await
            .unwrap_err();
    }
    assert_eq!((sent.count(), breaker(&stack).state()), (0, State::Closed));
}

/// The number of ejected replicas, of three that get calls in turn and take 20 ms; or the first one `hangs`.
async fn ejected(hangs: bool, share: f64, patience: Patience) -> usize {
    let replica = |number: u32| {
        let time = if hangs && number == 0 {
            FOREVER
        } else {
            20 * MS
        };
        let (replica, _) = service(move |_: &Request<Body>, _| (time, answer(200)));
        Endpoint::new(number, BoxCloneSyncService::new(replica))
    };
    let replicas = buttress::http::balance("replicas")
        .choose(RoundRobin)
        .seed(1);
    let replicas = replicas.build((0..3).map(replica)).unwrap();
    let handle = replicas.handle();
    let stack = buttress::http::standard("replicas")
        .no_circuit_breaker()
        .no_retry();
    let client = stack.unlimited().seed(1).build().unwrap().wrap(replicas);
    call_for(&client, 15 * SECOND, 1, |draw| {
        if draw < share {
            (get("/"), patience)
        } else {
            (get("/"), Patience::Full)
        }
    })
    .await;
    let endpoints = handle.endpoints().into_iter();
    endpoints.filter(|endpoint| endpoint.ejections > 0).count()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_ejected_whatever_time_callers_bring() {
    for patience in [
        Patience::Full,
        Patience::Deadline(500 * MS),
        Patience::Drops(500 * MS),
    ] {
        assert_eq!(ejected(true, 1.0, patience).await, 1, "{patience:?}");
    }
    for patience in [Patience::Deadline(12 * MS), Patience::Drops(12 * MS)] {
        assert_eq!(ejected(false, 0.9, patience).await, 0, "{patience:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_losers_of_hedges_are_no_evidence_about_a_replica_that_hangs() {
    let breaker = CircuitBreakerLayer::config("replica").consecutive_failures(1);
    let breaker = breaker.build().unwrap();
    let (state, others) = (breaker.handle(), CircuitBreakerLayer::new("others"));
    let replica = |number: u32| {
        let time = if number == 0 { FOREVER } else { 20 * MS };
        let (replica, sent) = service(move |_: &Request<Body>, _| (time, answer(200)));
        let breaker = if number == 0 { &breaker } else { &others };
        let replica = BoxCloneSyncService::new(breaker.layer(replica));
        (Endpoint::new(number, replica), sent)
    };
    let (replicas, sent): (Vec<_>, Vec<_>) = (0..30).map(replica).unzip();
    let balance = buttress::http::balance("replicas").choose(RoundRobin);
    let replicas = balance.seed(1).build(replicas).unwrap();
    let handle = replicas.handle();
    let stack = buttress::http::standard("replicas").no_circuit_breaker();
    let stack = stack
        .no_retry()
        .no_timeout()
        .no_response_timeout()
        .unlimited();
    let stack = stack.hedge(|hedge| hedge.delay(500 * MS)).seed(1);
    let client = stack.build().unwrap().wrap(replicas);
    let calls = tokio::spawn(async move {
        call_for(&client, 15 * SECOND, 1, |_| (get("/"), Patience::Full)).await;
    });
    sleep(16 * SECOND).await;
    calls.abort();
    assert_eq!(state.state(), State::Closed);
    assert!(
        handle
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.ejections == 0)
    );
    assert!(sent[0].count() > 40, "it has got its share of the calls");
}
