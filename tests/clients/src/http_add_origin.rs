//! Requests that are sent to one origin.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use axum::Router;
use axum::routing::get;
use buttress::BoxError;
use buttress::http::AddOriginLayer;
use buttress::http::add_origin::{AddOrigin, ResponseFuture};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};

/// Sends a request through the layer and returns what the client gets.
async fn sent(layer: &AddOriginLayer, request: Request<u8>) -> Request<u8> {
    let client = service_fn(async |request| Ok::<_, BoxError>(request));
    layer.wrap(client).oneshot(request).await.unwrap()
}

async fn uri(method: Method, uri: &str) -> String {
    let layer = AddOriginLayer::new("http://10.0.0.1:8080").unwrap();
    let request = Request::builder().method(method).uri(uri);
    let request = sent(&layer, request.body(0).unwrap()).await;
    request.uri().to_string()
}

#[tokio::test]
async fn scheme_and_authority_are_those_of_the_origin() {
    for (asked, expected) in [
        ("/stock?item=bolts", "http://10.0.0.1:8080/stock?item=bolts"),
        ("/", "http://10.0.0.1:8080/"),
        ("https://search/stock", "http://10.0.0.1:8080/stock"),
        ("https://search?a=1", "http://10.0.0.1:8080/?a=1"),
        ("https://search", "http://10.0.0.1:8080/"),
        ("search:80", "http://10.0.0.1:8080/"),
    ] {
        assert_eq!(uri(Method::GET, asked).await, expected, "{asked}");
    }
}

#[tokio::test]
async fn a_tunnel_goes_where_it_was_meant_to_go() {
    assert_eq!(uri(Method::CONNECT, "search:443").await, "search:443");
}

#[tokio::test]
async fn a_question_to_the_whole_server_stays_one() {
    let layer = AddOriginLayer::new("http://10.0.0.1:8080").unwrap();
    let request = Request::options("*").body(0).unwrap();
    let request = sent(&layer, request).await;
    assert_eq!(request.uri().path(), "*");
    assert_eq!(request.uri().authority().unwrap(), "10.0.0.1:8080");
}

#[tokio::test]
async fn everything_else_stays_as_it_is() {
    let layer = AddOriginLayer::new("https://search-1.internal/").unwrap();
    let request = Request::put("/stock").version(Version::HTTP_2);
    let request = request.header("host", "search.internal").extension("kept");
    let request = sent(&layer, request.body(7).unwrap()).await;
    assert_eq!(request.uri(), "https://search-1.internal/stock");
    assert_eq!(
        (request.method(), request.version()),
        (&Method::PUT, Version::HTTP_2)
    );
    let host = HeaderValue::from_static("search.internal");
    assert_eq!(request.headers().get("host"), Some(&host));
    assert_eq!(request.headers().len(), 1);
    assert_eq!(request.extensions().get(), Some(&"kept"));
    assert_eq!(request.body(), &7);
}

#[tokio::test]
async fn an_address_is_an_origin() {
    let v4 = SocketAddr::from(([10, 0, 0, 1], 80));
    let zoned = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 8080, 0, 3).into();
    for (address, expected) in [(v4, "http://10.0.0.1:80/"), (zoned, "http://[::1]:8080/")] {
        let request = sent(&AddOriginLayer::http(address), Request::new(0)).await;
        assert_eq!(request.uri(), expected);
    }
}

#[test]
fn an_origin_that_makes_no_sense_is_refused() {
    let refused = |origin| AddOriginLayer::new(origin).unwrap_err();
    for (origin, field) in [
        ("", "name"),
        ("http://", "URI"),
        ("http://a b", "URI"),
        ("10.0.0.1:8080", "scheme"),
        ("search", "scheme"),
        ("/stock", "scheme"),
        ("http://search/stock", "path"),
        ("http://search?a=1", "path"),
    ] {
        assert_eq!(refused(origin).field(), field, "{origin}");
    }
    assert_eq!(
        refused("10.0.0.1:8080").to_string(),
        "origin \"10.0.0.1:8080\": scheme is missing, but must be given, as in http://10.0.0.1:8080"
    );
}

#[tokio::test]
async fn a_client_that_is_not_ready_is_waited_for_in_the_call() {
    let (client, mut server) = tower_test::mock::pair::<Request<()>, u8>();
    let mut client = AddOriginLayer::http(([10, 0, 0, 1], 80).into()).wrap(client);
    server.allow(0);
    client.ready().await.unwrap();
    let mut call = tokio_test::task::spawn(client.call(Request::new(())));
    assert!(call.poll().is_pending());
    server.allow(1);
    let answers = async {
        let (request, answer) = server.next_request().await.unwrap();
        assert_eq!(request.uri(), "http://10.0.0.1:80/");
        answer.send_response(1);
    };
    let (answer, ()) = tokio::join!(call, answers);
    assert_eq!(answer.unwrap(), 1);
}

#[tokio::test]
async fn a_hyper_client_names_the_origin_as_host_unless_the_request_names_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = get(async |headers: HeaderMap| headers["host"].to_str().unwrap().to_owned());
    let app = Router::new().route("/host", host);
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let replica = AddOriginLayer::http(address).wrap(client);
    let asked = async |request: http::request::Builder| {
        let answer = replica.clone().oneshot(request.body(Empty::new()).unwrap());
        let body = answer.await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    };
    let request = || Request::get("http://search/host");
    assert_eq!(asked(request()).await, address.to_string());
    let named = request().header("host", "search.internal");
    assert_eq!(asked(named).await, "search.internal");
}

type Boxed = BoxCloneSyncService<Request<()>, (), BoxError>;

fn shareable<T: Send + Unpin>() {}

#[test]
fn services_and_calls_may_go_to_other_threads() {
    shareable::<AddOriginLayer>();
    shareable::<AddOrigin<Boxed>>();
    shareable::<ResponseFuture<Boxed, ()>>();
}

proptest! {
    #[test]
    fn no_origin_and_no_uri_lead_to_a_panic(origin in "(https?://)?[a-z.:@\\[\\]%0-9]{0,8}(/[a-z?]{0,2})?", uri in "([a-z]{1,3}://)?[a-z.:@%0-9]{0,6}[*/?a-z]{0,6}") {
        let Ok(layer) = AddOriginLayer::new(&origin) else { return Ok(()) };
        let Ok(request) = Request::get(&uri).body(0) else { return Ok(()) };
        let path = request.uri().path_and_query().cloned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sent = runtime.block_on(sent(&layer, request));
        prop_assert!(sent.uri().scheme().is_some() && sent.uri().authority().is_some());
        prop_assert_eq!(sent.uri().path(), path.as_ref().map_or("/", |path| path.path()));
        prop_assert_eq!(sent.uri().query(), path.as_ref().and_then(|path| path.query()));
    }
}
