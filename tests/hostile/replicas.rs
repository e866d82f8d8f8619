//! An endpoint of a balancer is judged by calls that it had enough time for.

use buttress::balance::{Choose, Endpoint, Endpoints, Handle};
use buttress::http::PropagateDeadlineLayer;
use buttress::{BoxError, TimeoutLayer};
use http::{Request, Response};
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::callers::{Body, MS, Patience, SECOND, answer, call_for, get, service, told};

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
    for (waits, expected) in [(990 * MS, vec![]), (0 * MS, vec!["0".to_owned()])] {
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
