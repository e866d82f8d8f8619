use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use buttress::{BoxError, Rate, RateLimitLayer};
use http::{Request, StatusCode};
use tokio::net::TcpListener;

fn tenant(request: &Request<Body>) -> String {
    let tenant = request.headers().get("x-tenant").and_then(|tenant| tenant.to_str().ok());
    tenant.unwrap_or("anybody").to_owned()
}

async fn serve(listener: TcpListener, sigterm: impl Future<Output = ()>) -> Result<(), BoxError> {
    let protect = buttress::http::server("shop")
        .deadline(Duration::from_secs(10)) // the caller's own, and at most this
        .concurrency_limit(200) // or `.bulkhead(200, |bulkhead| bulkhead.queue(100))`
        .keyed(tenant, RateLimitLayer::config("tenants", Rate::per_second(10)).burst(20))
        .build()?;
    let (handle, ready) = (protect.handle(), protect.handle());
    let app = Router::new()
        .route("/stock", get(async || "12 bolts"))
        .layer(protect)
        // After the layer, so that it answers during a drain.
        .route("/ready", get(async move || {
            if ready.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        }));
    let server = axum::serve(listener, app).with_graceful_shutdown(handle.drained());
    // Finishes the calls in flight, bodies included, within 20 s of the signal.
    let ended = handle.run_until(sigterm, Duration::from_secs(20), server).await;
    Ok(ended.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?)
}
