use axum::Router;
use axum::routing::get;
use buttress::BulkheadLayer;
use buttress::http::{BodyTimeoutLayer, InheritDeadlineLayer, RespondLayer};
use tower::ServiceBuilder;

fn shop() -> Router {
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(InheritDeadlineLayer::new("shop")) // the caller's deadline, at most 60 s
        .layer(BulkheadLayer::new("shop", 100))
        .layer(BodyTimeoutLayer::new("shop")); // ends the response body at that time, too
    Router::new().route("/stock", get(async || "12 bolts")).layer(layers)
}
