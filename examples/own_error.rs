//! Your own error type: `?` converts the error of a stack, also in a spawned task, so that callers can act on it.
//!
//! `cargo run --example own_error`

use std::future::pending;
use std::io;
use std::time::Duration;

use buttress::stack::StandardService;
use buttress::{BoxError, ErrorKind, standard};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

/// The recipe. It does not need `thiserror`.
#[derive(Debug, thiserror::Error)]
enum StockError {
    /// The service takes no calls at present. The caller may try again.
    #[error("not at present, try again in {} ms", retry_after.as_millis())]
    Busy { retry_after: Duration },
    /// The service may have acted on the call or not.
    #[error("no answer in time")]
    NoAnswer(#[source] buttress::Error),
    /// The service's own error.
    #[error("item {0} is unknown")]
    Unknown(String),
    #[error("the stock service does not work")]
    Broken(#[source] buttress::Error),
}

impl From<buttress::Error> for StockError {
    fn from(error: buttress::Error) -> Self {
        match error.kind() {
            ErrorKind::Timeout | ErrorKind::DeadlineExceeded => Self::NoAnswer(error),
            ErrorKind::Service => match error.downcast_ref::<UnknownItem>() {
                Some(UnknownItem(item)) => Self::Unknown(item.clone()),
                None => Self::Broken(error),
            },
            // All other kinds are rejections: the service has not acted.
            _ => Self::Busy {
                retry_after: error.retry_after().unwrap_or(Duration::from_secs(1)),
            },
        }
    }
}

/// An error of the client.
#[derive(Debug, thiserror::Error)]
#[error("404")]
struct UnknownItem(String);

type Client = BoxCloneSyncService<&'static str, u32, BoxError>;

#[derive(Clone)]
struct Stock(StandardService<Client>);

impl Stock {
    async fn total(&self, items: [&'static str; 2]) -> Result<u32, StockError> {
        Ok(self.0.send(items[0]).await? + self.0.send(items[1]).await?)
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let client = Client::new(service_fn(async |item: &'static str| match item {
        "bolts" => Ok(12),
        "nuts" => pending().await,
        "screws" => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        item => Err(UnknownItem(item.to_owned()).into()),
    }));
    let layer = standard("stock")
        .timeout(Duration::from_millis(300))
        .concurrency_limit(50)
        .build()?;
    let stock = Stock(layer.wrap(client));
    let mut seen = Vec::new();
    for other in ["bolts", "nuts", "screws", "cogs", "refused"] {
        if other == "refused" {
            layer
                .handle()
                .circuit_breaker()
                .ok_or("it is on")?
                .force_open();
        }
        let stock = stock.clone();
        let total = tokio::spawn(async move { stock.total(["bolts", other]).await }).await?;
        match &total {
            Ok(total) => println!("{other}: {total}"),
            Err(error) => println!("{other}: {error}"),
        }
        seen.push(total);
    }
    assert!(matches!(
        seen.as_slice(),
        [
            Ok(24),
            Err(StockError::NoAnswer(_)),
            Err(StockError::Broken(_)),
            Err(StockError::Unknown(_)),
            Err(StockError::Busy { .. })
        ]
    ));
    Ok(())
}
