use axum::Router;
use axum::routing::get;
use buttress::BulkheadLayer;
use buttress::http::{InheritDeadlineLayer, RespondLayer};
use tower::ServiceBuilder;

fn shop() -> Router {
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(InheritDeadlineLayer::new("shop"))
        .layer(BulkheadLayer::new("shop", 100));
    Router::new().route("/stock", get(async || "12 bolts")).layer(layers)
}
