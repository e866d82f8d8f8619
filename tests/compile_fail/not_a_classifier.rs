//~ `Outcome` does not classify responses of type
//~ this classifier does not fit the service's response
//~ write `.classify(classify_fn(

use buttress::{BoxError, MeasureLayer, Outcome};
use tower::service_fn;

async fn count(_: ()) -> Result<u32, BoxError> {
    Ok(12)
}

fn main() {
    let measure = MeasureLayer::operation("inventory").classify(Outcome::Failure);
    let _ = measure.wrap::<(), _>(service_fn(count));
}
