//! The one error of all services: into what `?` converts it, where it is found again, and what it prints.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use buttress::{
    Backoff, BoxError, Budget, BulkheadLayer, ByClone, Cause, CircuitBreakerLayer, Deadline, Error,
    ErrorKind, GaveUp, Jitter, MeasureLayer, Outcome, RetryLayer, TimeoutLayer, classify_fn,
    standard,
};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// What a client of another crate returns.
#[derive(Debug, thiserror::Error)]
#[error("error sending request")]
struct ClientError(#[source] io::Error);

async fn reset(_item: &'static str) -> Result<(), ClientError> {
    let reset = io::Error::new(io::ErrorKind::ConnectionReset, "connection reset");
    Err(ClientError(reset))
}

fn three_attempts() -> RetryLayer {
    RetryLayer::config("inventory")
        .backoff(Backoff::constant(SECOND).jitter(Jitter::None))
        .build()
        .expect("valid")
}

/// A refusal of a circuit breaker.
async fn refused() -> Result<(), Error> {
    let breaker = CircuitBreakerLayer::new("inventory");
    breaker.handle().force_open();
    breaker.wrap(service_fn(reset)).send("bolts").await
}

/// The last of three errors of the client.
async fn failed() -> Result<(), Error> {
    let breaker = CircuitBreakerLayer::new("inventory");
    let inside = BoxCloneSyncService::new(breaker.wrap(service_fn(reset)));
    three_attempts().wrap(inside).send("bolts").await
}

#[derive(Debug, thiserror::Error)]
enum Order {
    #[error(transparent)]
    Stock(#[from] Error),
    #[error(transparent)]
    Payment(BoxError),
    #[error("while ordering")]
    While(#[source] Error),
}

mod converts_into {
    use super::*;

    pub(super) async fn anyhow() -> anyhow::Result<()> {
        Ok(refused().await?)
    }

    pub(super) async fn anyhow_with_context() -> anyhow::Result<()> {
        anyhow::Context::context(refused().await, "while ordering")?;
        Ok(())
    }

    pub(super) async fn eyre() -> eyre::Result<()> {
        refused().await?;
        Ok(())
    }

    pub(super) async fn an_enum() -> Result<(), Order> {
        refused().await?;
        Ok(())
    }

    pub(super) async fn a_box() -> Result<(), BoxError> {
        refused().await?;
        Ok(())
    }

    pub(super) async fn a_box_of_one_thread() -> Result<(), Box<dyn StdError>> {
        refused().await?;
        Ok(())
    }
}

#[tokio::test]
async fn is_found_in_whatever_it_was_converted_into() {
    #[track_caller]
    fn is_open(error: &(dyn StdError + 'static)) {
        let cause = Error::find(error).expect("is found");
        assert_eq!(cause.kind(), ErrorKind::CircuitOpen, "{error:?}");
        assert_eq!(cause.name(), "inventory");
        assert!(cause.is_rejection());
    }
    is_open(&refused().await.expect_err("refuses"));
    is_open(converts_into::anyhow().await.expect_err("refuses").as_ref());
    let context = converts_into::anyhow_with_context().await;
    is_open(context.expect_err("refuses").as_ref());
    is_open(converts_into::eyre().await.expect_err("refuses").as_ref());
    is_open(&converts_into::an_enum().await.expect_err("refuses"));
    let payment = refused().await.expect_err("refuses");
    is_open(&Order::Payment(payment.into()));
    is_open(&Order::While(refused().await.expect_err("refuses")));
    is_open(converts_into::a_box().await.expect_err("refuses").as_ref());
    let boxed = converts_into::a_box_of_one_thread().await;
    is_open(boxed.expect_err("refuses").as_ref());
    let inside = converts_into::an_enum().await.expect_err("refuses");
    is_open(&io::Error::other(inside));
    // An `anyhow::Error` is no error, but its box is.
    let context = converts_into::anyhow_with_context().await;
    let boxed: BoxError = context.expect_err("refuses").into();
    is_open(boxed.as_ref());
    is_open(&Box::new(refused().await.expect_err("refuses")));
    assert!(Error::find(&io::Error::other("not ours")).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_service_is_inside_once_and_as_it_was() {
    let error = failed().await.expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::Service);
    assert_eq!(error.name(), "inventory");
    assert_eq!(
        (error.attempts(), error.gave_up()),
        (Some(3), Some(GaveUp::Exhausted))
    );
    assert!(error.was_sent() && !error.is_rejection());
    assert!(error.downcast_ref::<ClientError>().is_some());
    let inside = error.downcast_ref::<io::Error>().expect("is a source");
    assert_eq!(inside.kind(), io::ErrorKind::ConnectionReset);
    let anyhow = anyhow::Error::from(error);
    let chain: Vec<bool> = anyhow
        .chain()
        .map(<dyn StdError>::is::<ClientError>)
        .collect();
    assert_eq!(
        chain,
        [false, false, true, false],
        "error, cause, client, io"
    );
    let error = anyhow.downcast::<Error>().expect("is one");
    let service = error.into_service_error().expect("has one");
    assert!(service.is::<ClientError>());
    let refused = refused().await.expect_err("refuses");
    assert!(refused.service_error().is_none());
    let refused = refused.into_service_error().expect_err("has none");
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
}

#[tokio::test(start_paused = true)]
async fn each_text_is_printed_once() {
    let error = failed().await.expect_err("fails");
    assert_eq!(
        error.to_string(),
        "\"inventory\" failed after 3 of 3 attempts"
    );
    let story =
        "\"inventory\" failed after 3 of 3 attempts: error sending request: connection reset";
    assert_eq!(format!("{error:#}"), story);
    assert_eq!(format!("{error:?}"), story);
    assert!(format!("{error:#?}").contains("attempts: 3"));
    let anyhow = anyhow::Error::from(error).context("while ordering");
    assert_eq!(
        format!("{anyhow:#}"),
        "while ordering: \"inventory\" failed after 3 of 3 attempts: the service may have acted on the request: error \
         sending request: connection reset"
    );
    let refused = anyhow::Error::from(refused().await.expect_err("refuses"));
    assert_eq!(
        format!("{refused:#}"),
        "circuit breaker \"inventory\" is open: the request was not sent"
    );
}

type Judge = fn(Result<&(), &Error>) -> Outcome;

/// The message of a call whose attempts all hang.
async fn message(retry: &RetryLayer<ByClone, Judge>, deadline: Option<Duration>) -> String {
    let timeout = TimeoutLayer::new("inventory", Duration::from_millis(300));
    let hangs = service_fn(|()| std::future::pending::<Result<(), BoxError>>());
    let client = retry.wrap(timeout.wrap(hangs));
    let call = client.send(());
    let result = match deadline {
        Some(left) => Deadline::after(left).scope(call).await,
        None => call.await,
    };
    result.expect_err("hangs").to_string()
}

#[tokio::test(start_paused = true)]
async fn our_own_errors_say_why_there_was_no_further_attempt() {
    let judge = |result: Result<&(), &Error>| match result {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::Failure,
    };
    let dismiss = |_: Result<&(), &Error>| Outcome::Ignored;
    let config = || {
        RetryLayer::config("inventory")
            .backoff(Backoff::constant(Duration::from_millis(100)).jitter(Jitter::None))
            .classify(judge as Judge)
    };
    let start = "\"inventory\" gave no answer within 300.0ms, after";
    let all = config().build().expect("valid");
    assert_eq!(
        message(&all, None).await,
        format!("{start} 3 of 3 attempts")
    );
    let late = config().build().expect("valid");
    let late = message(&late, Some(Duration::from_millis(750))).await;
    assert_eq!(
        late,
        format!("{start} 2 of 3 attempts: the deadline leaves no time for another attempt")
    );
    let ignored = config().classify(dismiss as Judge);
    let ignored = message(&ignored.build().expect("valid"), None).await;
    assert_eq!(
        ignored,
        format!("{start} 1 of 3 attempts: another attempt would not help")
    );
    let budget = Budget::config("inventory")
        .initial(1)
        .build()
        .expect("valid");
    let frugal = config().budget(&budget).build().expect("valid");
    let frugal = message(&frugal, None).await;
    assert_eq!(
        frugal,
        format!("{start} 2 of 3 attempts: the retry budget is used up")
    );
    let once = config().max_attempts(1).build().expect("valid");
    let once = message(&once, None).await;
    assert_eq!(once, "\"inventory\" gave no answer within 300.0ms");
}

#[tokio::test(start_paused = true)]
async fn an_inner_retry_leaves_the_count_to_the_outer_one() {
    let error = three_attempts().wrap(three_attempts().wrap(service_fn(reset)));
    let error = error.send("bolts").await.expect_err("fails");
    assert_eq!(error.attempts(), Some(3));
    assert_eq!(error.gave_up(), Some(GaveUp::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_another_crate_has_wrapped_is_a_rejection() {
    let breaker = CircuitBreakerLayer::new("inventory");
    breaker.handle().force_open();
    let inside = breaker.wrap(service_fn(reset));
    let contexts = service_fn(move |item| {
        let call = inside.send(item);
        async move { anyhow::Context::context(call.await, "while ordering") }
    });
    let client = ServiceBuilder::new()
        .layer(MeasureLayer::operation("inventory"))
        .layer(three_attempts())
        .layer(BulkheadLayer::new("inventory", 5))
        .service(contexts);
    let error = client.send("bolts").await.expect_err("refuses");
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert!(error.is_rejection());
    assert_eq!(error.attempts(), Some(1));
    assert!(error.service_error().is_some(), "the context is not lost");
    let story = format!("{error:?}");
    assert_eq!(story.matches("is open").count(), 1, "{story}");
    assert!(story.contains("while ordering"), "{story}");
}

#[tokio::test]
async fn no_error_proves_by_itself_that_a_service_has_seen_nothing() {
    for kind in [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
    ] {
        let client = service_fn(move |()| async move {
            Err::<(), _>(ClientError(io::Error::other(io::Error::from(kind))))
        });
        let client = BulkheadLayer::new("inventory", 5).wrap(client);
        let error = client.send(()).await.expect_err("fails");
        assert_eq!((error.was_sent(), error.is_rejection()), (true, false));
    }
}

#[tokio::test]
async fn a_classifier_sees_the_error_of_the_client() {
    let classify = classify_fn(|result: Result<&(), &Error>| match result {
        Err(error) if error.downcast_ref::<io::Error>().is_some() => Outcome::Ignored,
        Err(_) => Outcome::Failure,
        Ok(()) => Outcome::Success,
    });
    let stack = standard("inventory").classify(classify).unlimited();
    let client = stack.build().expect("valid").wrap(service_fn(reset));
    let error = client.send("bolts").await.expect_err("fails");
    assert_eq!(error.gave_up(), Some(GaveUp::NotRetryable));
}

#[test]
fn it_is_small_and_can_go_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + 'static>() {}
    anywhere::<Error>();
    anywhere::<Cause>();
    assert_eq!(size_of::<Error>(), 8);
    assert_eq!(size_of::<Result<u64, Error>>(), 16);
    assert_eq!(size_of::<Result<(), Error>>(), 8);
}
