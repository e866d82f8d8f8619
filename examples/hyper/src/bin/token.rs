//! A token that is renewed between attempts: after a 401, the request is sent once more, at once, with a new token.
//!
//! `cargo run --package example-hyper --bin token`

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use buttress::http::{self as resilient, Classifier};
use buttress::{BoxError, Budget, ConfigError, hyper as adapter};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tower::Service;

type Hyper = adapter::Client<Client<HttpConnector, Full<Bytes>>>;

/// The token that all calls use, and the client of the service that issues it.
struct Tokens {
    current: Mutex<HeaderValue>,
    renewal: AsyncMutex<()>,
    login: resilient::Client<Hyper>,
    server: SocketAddr,
}

impl Tokens {
    fn current(&self) -> HeaderValue {
        self.current
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// Fetches a new token, unless another call has replaced the rejected one already.
    async fn renew(&self, rejected: HeaderValue) -> Result<(), BoxError> {
        let _one_at_a_time = self.renewal.lock().await;
        if self.current() == rejected {
            let request = Request::post(format!("http://{}/token", self.server)).body("")?;
            let token = self
                .login
                .send(request)
                .await?
                .into_body()
                .collect()
                .await?;
            let token = HeaderValue::from_maybe_shared(token.to_bytes())?;
            *self.current.lock().expect("nobody panics with the lock") = token;
        }
        Ok(())
    }
}

/// The recipe: a client that adds the token to each attempt, and renews it after a 401.
#[derive(Clone)]
struct WithToken<S> {
    client: S,
    tokens: Arc<Tokens>,
}

impl<S, B, R> Service<Request<B>> for WithToken<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send + 'static>,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.client.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let token = self.tokens.current();
        request.headers_mut().insert(AUTHORIZATION, token.clone());
        // The call is here and not in the async block, so that the adapter can prove that a request was not sent.
        let response = self.client.call(request);
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            if response.status() == StatusCode::UNAUTHORIZED {
                // Without a new token, the caller gets the 401.
                if let Err(error) = tokens.renew(token).await {
                    println!("  no token: {error:#}");
                }
            }
            Ok(response)
        })
    }
}

fn shop(server: SocketAddr) -> Result<resilient::Client<WithToken<Hyper>>, ConfigError> {
    let client = adapter::Client::new(Client::builder(TokioExecutor::new()).build_http());
    let login = resilient::client("login")
        .concurrency_limit(1)
        .wrap(client.clone())?;
    let (current, renewal) = (
        Mutex::new(HeaderValue::from_static("none")),
        AsyncMutex::default(),
    );
    let tokens = Arc::new(Tokens {
        current,
        renewal,
        login,
        server,
    });
    // A token expires for all calls in flight at once, so the budget holds a retry for each of them.
    let budget = Budget::config("shop").reserve(50).initial(50).build()?;
    resilient::client("shop")
        .budget(&budget)
        .classify(Classifier::new().retry_unauthorized())
        .concurrency_limit(50)
        .wrap(WithToken { client, tokens })
}

/// The service: the token that it accepts, the tokens that it has issued, and the requests with their results.
#[derive(Default)]
struct Server {
    valid: AtomicU32,
    issued: AtomicU32,
    orders: AtomicU32,
    rejected: AtomicU32,
}

async fn issue(State(server): State<Arc<Server>>) -> String {
    server.issued.fetch_add(1, Relaxed);
    format!("Bearer {}", server.valid.load(Relaxed))
}

async fn order(State(server): State<Arc<Server>>, headers: HeaderMap) -> StatusCode {
    let valid = format!("Bearer {}", server.valid.load(Relaxed));
    if headers
        .get(AUTHORIZATION)
        .is_some_and(|token| *token == *valid)
    {
        server.orders.fetch_add(1, Relaxed);
        StatusCode::CREATED
    } else {
        server.rejected.fetch_add(1, Relaxed);
        StatusCode::UNAUTHORIZED
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = Arc::<Server>::default();
    let app = Router::new()
        .route("/token", post(issue))
        .route("/orders", post(order))
        .with_state(Arc::clone(&server));
    tokio::spawn(async { axum::serve(listener, app).await });
    let shop = shop(address)?;

    for expired in 1..=3 {
        println!("the token expires, and 10 orders are sent at once");
        server.valid.fetch_add(1, Relaxed);
        let mut orders = JoinSet::new();
        for _ in 0..10 {
            // No `Idempotency-Key` is needed: the server does not act on a request whose token it rejects.
            let request = Request::post(format!("http://{address}/orders")).body("12 bolts")?;
            orders.spawn(shop.send(request));
        }
        for response in orders.join_all().await {
            assert_eq!(response?.status(), StatusCode::CREATED);
        }
        let (orders, rejected) = (server.orders.load(Relaxed), server.rejected.load(Relaxed));
        let issued = server.issued.load(Relaxed);
        println!("  in all {orders} orders, {rejected} requests rejected, {issued} tokens issued");
        assert_eq!((orders, issued), (10 * expired, expired));
        assert!((expired..=10 * expired).contains(&rejected));
    }
    Ok(())
}
