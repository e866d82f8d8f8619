//! Calls that wait inside an `async` block of a spawned task, in a handler, and behind a field of a struct.
//!
//! Each test is one that compiles: with `oneshot` in place of `send` most of them do not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use buttress::stack::StandardService;
use buttress::{
    Balance, BoxError, BulkheadLayer, ByClone, CircuitBreakerLayer, CompleteOnResponse, Error,
    ErrorKind, FallbackLayer, HedgeLayer, KeyedLayer, MeasureLayer, Outcome, Rate, RateLimitLayer,
    RetryLayer, TimeoutLayer, balance, classify_fn, fallback, standard,
};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

async fn stock(item: &'static str) -> Result<usize, BoxError> {
    match item {
        "" => Err("no item".into()),
        item => Ok(item.len()),
    }
}

async fn length(text: &str) -> Result<usize, BoxError> {
    tokio::task::yield_now().await;
    Ok(text.len())
}

#[tokio::test]
async fn a_closure_with_a_boxed_error_and_a_static_text() {
    let client = standard("stock")
        .concurrency_limit(50)
        .build()
        .expect("valid")
        .wrap(service_fn(|item: &'static str| async move {
            tokio::task::yield_now().await;
            stock(item).await
        }));
    let task = tokio::spawn(async move {
        let bolts = client.send("bolts").await?;
        let error = client.send("").await.expect_err("fails");
        assert_eq!(error.kind(), ErrorKind::Service);
        let nuts = client.send("nuts").await?;
        Ok::<_, BoxError>(bolts + nuts)
    });
    assert_eq!(task.await.expect("runs").expect("answers"), 9);
}

#[tokio::test]
async fn a_closure_with_an_error_of_its_own_and_a_classifier_by_closure() {
    let classify = classify_fn(|result: Result<&usize, &Error>| match result {
        Ok(_) => Outcome::Success,
        Err(error) if error.downcast_ref::<io::Error>().is_some() => Outcome::Ignored,
        Err(_) => Outcome::Failure,
    });
    let client = standard("stock")
        .classify(classify)
        .unlimited()
        .build()
        .expect("valid")
        .wrap(service_fn(|item: &'static str| async move {
            Err::<usize, _>(io::Error::other(item))
        }));
    let task = tokio::spawn(async move { client.send("bolts").await });
    let error = task.await.expect("runs").expect_err("fails");
    assert_eq!(error.attempts(), Some(1));
    assert_eq!(
        format!("{error:?}"),
        "\"stock\" failed after 1 of 3 attempts: another attempt would not help: bolts"
    );
}

#[tokio::test]
async fn boxes_inside_and_outside() {
    let boxed = BoxCloneSyncService::new(service_fn(stock));
    let inside = CircuitBreakerLayer::new("stock").wrap(boxed);
    let outside: BoxCloneSyncService<&'static str, usize, Error> =
        BoxCloneSyncService::new(RetryLayer::new("stock").wrap(inside.clone()));
    let again = TimeoutLayer::new("stock", SECOND).wrap(outside);
    let task = tokio::spawn(async move {
        let one = inside.send("bolts").await?;
        Ok::<_, Error>(one + again.send("nuts").await?)
    });
    assert_eq!(task.await.expect("runs").expect("answers"), 9);
}

/// A classifier, a copy and a key by closure, all in one `async` block.
#[tokio::test]
async fn every_layer_by_itself() {
    let client = service_fn(|item: &'static str| async move { stock(item).await });
    let judge = classify_fn(|result: Result<&usize, &Error>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    });
    let retry = RetryLayer::config("stock")
        .classify(judge)
        .replay(|item: &&'static str| Some(*item))
        .build()
        .expect("valid")
        .wrap(client);
    let hedge = HedgeLayer::config("stock")
        .classify(judge)
        .build()
        .expect("valid")
        .wrap(client);
    let breaker = CircuitBreakerLayer::config("stock")
        .classify(judge)
        .build()
        .expect("valid")
        .wrap(client);
    let bulkhead = BulkheadLayer::new("stock", 5).wrap(client);
    let limit = RateLimitLayer::new("stock", Rate::per_second(100)).wrap(client);
    let timeout = TimeoutLayer::new("stock", SECOND).wrap(client);
    let measure = MeasureLayer::operation("stock").wrap(client);
    let fallback = FallbackLayer::config(
        "stock",
        fallback::from_failure(|failed: fallback::Failed<'_, usize>| {
            failed.result().err().map(|error| error.to_string().len())
        }),
    )
    .classify(judge)
    .build()
    .expect("valid")
    .wrap(client);
    let keyed = KeyedLayer::new(
        "stock",
        |item: &&'static str| *item,
        |_item: &&'static str| BulkheadLayer::new("stock", 5),
    )
    .wrap(client);
    let balance = Balance::new("stock", [balance::Endpoint::new("one", client)]).expect("valid");
    let task = tokio::spawn(async move {
        let mut sum = 0;
        sum += retry.send("bolts").await?;
        sum += hedge.send("bolts").await?;
        sum += breaker.send("bolts").await?;
        sum += bulkhead.send("bolts").await?;
        sum += limit.send("bolts").await?;
        sum += timeout.send("bolts").await?;
        sum += measure.send("bolts").await?;
        sum += fallback.send("bolts").await?;
        sum += keyed.send("bolts").await?;
        sum += balance.send("bolts").await?;
        Ok::<_, Error>(sum)
    });
    assert_eq!(task.await.expect("runs").expect("answers"), 50);
}

#[tokio::test]
async fn layers_put_together_by_a_builder() {
    let client = ServiceBuilder::new()
        .layer(MeasureLayer::operation("stock"))
        .layer(RetryLayer::new("stock"))
        .layer(CircuitBreakerLayer::new("stock"))
        .layer(TimeoutLayer::new("stock", SECOND))
        .service(service_fn(|item: &'static str| stock(item)));
    let task = tokio::spawn(async move { client.send("bolts").await });
    assert_eq!(task.await.expect("runs").expect("answers"), 5);
}

/// What an application has: a field whose type is written down.
struct Shop<C> {
    stock: StandardService<C, ByClone, Judge, CompleteOnResponse>,
}

type Judge = fn(Result<&usize, &Error>) -> Outcome;

fn judge(result: Result<&usize, &Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}

impl<C> Shop<C>
where
    C: Service<String, Response = usize, Error: Into<BoxError> + 'static, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    async fn order(&self, item: &str) -> Result<usize, Error> {
        self.stock.send(item.to_owned()).await
    }
}

fn shop<C>(client: C) -> Shop<C>
where
    C: Service<String, Response = usize, Error: Into<BoxError> + 'static> + Clone,
{
    let stack = standard("stock")
        .classify(judge as Judge)
        .concurrency_limit(50)
        .build()
        .expect("valid");
    Shop {
        stock: stack.wrap(client),
    }
}

#[tokio::test]
async fn a_field_behind_an_arc() {
    let shop = Arc::new(shop(service_fn(|item: String| async move {
        length(&item).await
    })));
    let task = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.order("bolts").await }
    });
    assert_eq!(task.await.expect("runs").expect("answers"), 5);
}

#[tokio::test]
async fn a_text_that_is_borrowed_by_the_caller() {
    let client = TimeoutLayer::new("stock", SECOND).wrap(service_fn(length));
    let text = String::from("bolts");
    assert_eq!(client.send(text.as_str()).await.expect("answers"), 5);
    let task = tokio::spawn(async move { client.send("nuts").await });
    assert_eq!(task.await.expect("runs").expect("answers"), 4);
}

#[tokio::test]
async fn the_method_keeps_what_the_inner_service_reserves_for_one_handle() {
    let limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(service_fn(stock));
    let client = TimeoutLayer::new("stock", SECOND).wrap(limited);
    let both = (client.send("bolts"), client.send("nuts"));
    let (bolts, nuts) = tokio::join!(both.0, both.1);
    assert_eq!(bolts.expect("answers") + nuts.expect("answers"), 9);
    drop(client.send("is not polled, and holds nothing"));
    assert_eq!(client.send("bolts").await.expect("answers"), 5);
}
