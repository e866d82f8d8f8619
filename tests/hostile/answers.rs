//! "Try again" and "count against the service" are separate decisions, and an answer to one caller is none to the others.

use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::rate_limit::Rate;
use http::{Request, Response};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::callers::{Body, MS, Patience, SECOND, answer, call_for, get, grpc, request, service};

/// An answer with another header.
fn with(status: u16, header: &'static str, value: &'static str) -> Response<Body> {
    let mut answer = answer(status);
    answer.headers_mut().insert(header, value.parse().unwrap());
    answer
}

/// Callers of whom some get `refusal`. Returns the losses of the others in percent.
async fn losses_beside(refusal: fn() -> Response<Body>) -> f64 {
    let (client, _) = service(move |request: &Request<Body>, _| {
        let is_refused = request.uri().path() == "/refused";
        (20 * MS, if is_refused { refusal() } else { answer(200) })
    });
    let rate = Rate::per_second(1_000);
    let stack = buttress::http::standard("shared").unlimited().seed(1);
    let stack = stack.rate_limit(rate, |limit| limit).build().unwrap();
    let client = stack.wrap(client);
    let losses = call_for(&client, 20 * SECOND, 1, |draw| {
        if draw < 0.7 {
            (get("/refused"), Patience::Deadline(SECOND))
        } else {
            (get("/"), Patience::Full)
        }
    });
    losses.await.percent()
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_over_its_own_quota_costs_others_nothing() {
    let percent = losses_beside(|| with(429, "retry-after", "60")).await;
    assert!(percent <= 0.5, "{percent} %");
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_token_has_expired_costs_others_nothing() {
    let percent = losses_beside(|| answer(401)).await;
    assert!(percent <= 0.5, "{percent} %");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_does_not_open_the_breaker_of_grpc() {
    let (client, _) = service(|request: &Request<Body>, _| {
        let is_large = request.uri().path() == "/large";
        (
            MS,
            with(200, "grpc-status", if is_large { "8" } else { "0" }),
        )
    });
    let client = grpc("files").build().unwrap().wrap(client);
    let losses = call_for(&client, 20 * SECOND, 1, |draw| {
        if draw < 0.7 {
            (get("/large"), Patience::Deadline(SECOND))
        } else {
            (get("/"), Patience::Full)
        }
    });
    let percent = losses.await.percent();
    assert!(percent <= 0.5, "{percent} %");
}

#[tokio::test(start_paused = true)]
async fn one_replica_that_asks_for_time_silences_itself_alone() {
    for status in [429, 503] {
        let replica = |number: u32| {
            let (replica, _) = service(move |_: &Request<Body>, _| {
                let answer = match number {
                    0 => with(status, "retry-after", "86400"),
                    _ => answer(200),
                };
                (20 * MS, answer)
            });
            Endpoint::new(number, tower::util::BoxCloneSyncService::new(replica))
        };
        let replicas = buttress::http::balance("replicas").seed(1);
        let replicas = replicas.build((0..3).map(replica)).unwrap();
        let rate = Rate::per_second(1_000);
        let stack = buttress::http::standard("replicas").no_circuit_breaker();
        let stack = stack.unlimited().rate_limit(rate, |limit| limit).seed(1);
        let client = stack.build().unwrap().wrap(replicas);
        let losses = call_for(&client, 20 * SECOND, 1, |_| (get("/"), Patience::Full));
        let percent = losses.await.percent();
        assert!(percent <= 0.5, "{status}: {percent} %");
    }
}

#[tokio::test(start_paused = true)]
async fn one_replica_of_grpc_that_asks_for_time_silences_itself_alone() {
    for status in ["8", "14"] {
        let replica = |number: u32| {
            let (replica, sent) = service(move |_: &Request<Body>, _| {
                let mut answer = with(200, "grpc-status", if number == 0 { status } else { "0" });
                if number == 0 {
                    let headers = answer.headers_mut();
                    headers.insert("grpc-retry-pushback-ms", 86_400_000.into());
                }
                (20 * MS, answer)
            });
            let replica = tower::util::BoxCloneSyncService::new(replica);
            (Endpoint::new(number, replica), sent)
        };
        let (replicas, sent): (Vec<_>, Vec<_>) = (0..3).map(replica).unzip();
        let replicas = buttress::http::grpc::balance("replicas")
            .seed(1)
            .build(replicas);
        let rate = Rate::per_second(1_000);
        let stack = grpc("replicas").no_circuit_breaker();
        let stack = stack.rate_limit(rate, |limit| limit).build().unwrap();
        let client = stack.wrap(replicas.unwrap());
        let losses = call_for(&client, 20 * SECOND, 1, |_| {
            (request("POST"), Patience::Full)
        });
        let percent = losses.await.percent();
        assert!(percent <= 0.5, "{status}: {percent} %");
        let asked = sent[0].count();
        assert!(asked <= 10, "{status}: it was asked {asked} times");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_never_does_is_asked_for_once_and_does_not_open_the_breaker() {
    for status in [501, 505] {
        let (client, sent) = service(move |_: &Request<Body>, _| (MS, answer(status)));
        let stack = buttress::http::standard("api").unlimited().build().unwrap();
        let client = stack.wrap(client);
        for _ in 0..100 {
            let answer = client.clone().oneshot(request("GET")).await.unwrap();
            assert_eq!(answer.status(), status);
        }
        assert_eq!(sent.count(), 100, "{status}");
    }
    let (client, sent) = service(|_: &Request<Body>, _| (MS, with(200, "grpc-status", "12")));
    let client = grpc("api").build().unwrap().wrap(client);
    client.oneshot(request("POST")).await.unwrap();
    assert_eq!(sent.count(), 1);
}

/// A gRPC client that hedges after 50 ms; the service answers the first call after 100 ms with `pushback`, and others never.
/// Returns when the second request was sent.
async fn hedge_after(pushback: &'static str, slow: Duration) -> Option<Duration> {
    let (client, sent) = service(move |_: &Request<Body>, now| {
        let mut answer = with(200, "grpc-status", "14");
        let headers = answer.headers_mut();
        headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        (if now.is_zero() { slow } else { 3_600 * SECOND }, answer)
    });
    let stack = grpc("api").no_retry().replay(buttress::ByClone);
    let stack = stack.hedge(|hedge| hedge.delay(50 * MS).max_hedges(3));
    let client = stack.build().unwrap().wrap(client);
    let began = Instant::now();
    let call = tokio::spawn(client.oneshot(request("POST")));
    while sent.count() < 2 {
        if call.is_finished() || began.elapsed() > 10 * SECOND {
            return None;
        }
        sleep(MS).await;
    }
    Some(began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_hedge_obeys_pushback() {
    assert_eq!(hedge_after("-1", 20 * MS).await, None);
    let after = hedge_after("500", 20 * MS).await.unwrap();
    assert!(after >= 520 * MS && after < 600 * MS, "{after:?}");
}
