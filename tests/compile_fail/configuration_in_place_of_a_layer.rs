//~ the configuration of a layer is not the layer
//~ call `.build()?`: it checks the configuration and makes the layer

use buttress::BulkheadLayer;
use tower::Layer;

/// As a router takes it.
fn add<L: Layer<u32>>(_layer: L) {}

fn main() {
    add(BulkheadLayer::config("inventory", 50));
}
