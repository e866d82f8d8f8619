//! An endpoint of a balancer is judged by calls that it had enough time for.

use std::time::Duration;

use buttress::balance::{Choose, Endpoint, Endpoints, Handle};
use buttress::http::PropagateDeadlineLayer;
use buttress::{BoxError, TimeoutLayer};
use http::{Request, Response};
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::callers::{
    Answer, Body, MS, Patience, SECOND, Sent, answer, call_for, get, service, told,
};

type Replica = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Chooses the endpoint whose number is the path.
#[derive(Clone)]
struct ByPath;

impl Choose<Request<Body>> for ByPath {
    fn choose(&self, request: &Request<Body>, _: &mut Endpoints<'_>) -> usize {
        request.uri().path()[1..].parse().unwrap()
    }
}

/// The paths of three endpoints in turn.
fn path(draw: f64) -> &'static str {
    ["/0", "/1", "/2"][(3.0 * draw) as usize]
}

/// A balancer over these.
fn balance(
    replicas: impl IntoIterator<Item = Replica>,
) -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = buttress::Error, Future: Send>
    + Clone
    + Send
    + 'static,
    Handle<Replica>,
) {
    let endpoints = replicas.into_iter().enumerate();
    let endpoints = endpoints.map(|(number, replica)| Endpoint::new(number, replica));
    let balance = buttress::http::balance("replicas").choose(ByPath).seed(1);
    let balance = balance.completion(buttress::CompleteOnResponse);
    let balance = balance.build(endpoints).unwrap();
    let handle = balance.handle();
    (balance, handle)
}

fn ejected(handle: &Handle<Replica>) -> Vec<String> {
    let endpoints = handle.endpoints().into_iter();
    let ejected = endpoints.filter(|endpoint| endpoint.ejections > 0);
    ejected.map(|endpoint| endpoint.key.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_timeout_does_not_count_against_an_endpoint_that_had_the_call_for_its_last_part() {
    for (waits, expected) in [(990 * MS, vec![]), (Duration::ZERO, vec!["0".to_owned()])] {
        let replica = |number: usize| {
            let time = if number == 0 { 1_500 * MS } else { 20 * MS };
            Replica::new(service(move |_: &Request<Body>, _| (time, answer(200))).0)
        };
        let (client, handle) = balance((0..3).map(replica));
        // Something else uses up the time of the calls for the first endpoint.
        let client = service_fn(move |request: Request<Body>| {
            let client = client.clone();
            async move {
                if request.uri().path() == "/0" {
                    sleep(waits).await;
                }
                client.oneshot(request).await
            }
        });
        let client = TimeoutLayer::new("replicas", SECOND).layer(client);
        call_for(&client, 15 * SECOND, 1, |draw| {
            (get(path(draw)), Patience::Full)
        })
        .await;
        assert_eq!(ejected(&handle), expected, "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_ends_calls_at_their_deadline_itself_is_not_ejected() {
    // Those with a deadline of 12 ms are nearly all calls, or the endpoint is a gateway that says so to everybody.
    for (fails, patience, expected) in [
        (false, 12 * MS, vec![]),
        (true, 12 * MS, vec!["0".to_owned()]),
        (true, 500 * MS, vec!["0".to_owned()]),
    ] {
        let replica = |number: usize| {
            let replica = service(move |request: &Request<Body>, _| {
                match told(request).filter(|time| number == 0 && (fails || *time < 20 * MS)) {
                    Some(time) => (time.min(12 * MS), answer(504)),
                    None => (20 * MS, answer(200)),
                }
            });
            let propagate = PropagateDeadlineLayer::new("replicas");
            let replica = propagate.layer(replica.0).map_err(BoxError::from);
            Replica::new(replica)
        };
        let (client, handle) = balance((0..3).map(replica));
        call_for(&client, 25 * SECOND, 1, |draw| {
            let is_short = fails || (10.0 * draw).fract() < 0.9;
            let patience = if is_short {
                Patience::Deadline(patience)
            } else {
                Patience::Full
            };
            (get(path(draw)), patience)
        })
        .await;
        assert_eq!(ejected(&handle), expected, "{fails}, {patience:?}");
    }
}

/// A client over three near replicas and three far ones, and the number of requests that have reached each group.
fn two_groups<F>(
    script: F,
) -> (
    impl Service<Request<Body>, Response: Answer, Error: Send, Future: Send> + Clone + Send + 'static,
    [Sent; 2],
)
where
    F: Fn(&Request<Body>, Duration) -> (Duration, Response<Body>) + Clone + Send + Sync + 'static,
{
    let sent = [Sent::default(), Sent::default()];
    let endpoints = (0..6).map(|number| {
        let group = number / 3;
        let (replica, counted) = (service(script.clone()).0, sent[group].clone());
        let replica = service_fn(move |request: Request<Body>| {
            counted.add();
            replica.clone().oneshot(request)
        });
        let replica = PropagateDeadlineLayer::new("zones").layer(replica);
        let replica = Replica::new(replica.map_err(BoxError::from));
        Endpoint::new(number, replica).priority(group as u8)
    });
    let balance = buttress::http::balance("zones").seed(1);
    let balance = balance.build(endpoints).unwrap();
    let stack = buttress::http::standard("zones").unlimited().seed(1);
    (stack.build().unwrap().wrap(balance), sent)
}

#[tokio::test(start_paused = true)]
async fn callers_that_do_harm_send_no_calls_to_the_far_zone() {
    use Patience::{Deadline, Drops};
    let (short, slow) = (20 * MS, 300 * MS);
    for (case, time, share, path, patience) in [
        ("short", short, 0.7, "/", Deadline(12 * MS)),
        ("most are short", short, 0.98, "/", Deadline(12 * MS)),
        ("drop", short, 0.7, "/", Drops(12 * MS)),
        ("slow", slow, 0.7, "/", Deadline(210 * MS)),
        ("slow, drop", slow, 0.7, "/", Drops(210 * MS)),
        ("slow path, 100 ms", short, 0.7, "/slow", Deadline(100 * MS)),
        ("slow path, 300 ms", short, 0.7, "/slow", Deadline(300 * MS)),
        ("slow path, drop", short, 0.7, "/slow", Drops(300 * MS)),
        ("504", short, 0.7, "/504", Deadline(12 * MS)),
        ("401", short, 0.7, "/401", Drops(60 * SECOND)),
        ("429", short, 0.7, "/429", Drops(60 * SECOND)),
    ] {
        let (client, sent) =
            two_groups(
                move |request: &Request<Body>, _| match request.uri().path() {
                    "/slow" => (500 * MS, answer(200)),
                    "/504" => (told(request).unwrap_or(time).min(time), answer(504)),
                    "/401" => (time, answer(401)),
                    "/429" => (time, answer(429)),
                    _ => (time, answer(200)),
                },
            );
        let losses = call_for(&client, 60 * SECOND, 1, |draw| {
            if draw < share {
                (get(path), patience)
            } else {
                (get("/"), Patience::Full)
            }
        });
        let percent = losses.await.percent();
        assert!(percent <= 0.5, "{case}: honest callers lose {percent} %");
        let [near, far] = sent.map(|sent| sent.count());
        let share = f64::from(far) * 100.0 / f64::from(near + far);
        assert!(share <= 0.5, "{case}: {share} % went to the far zone");
    }
}
