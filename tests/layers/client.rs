//! Async functions behind a standard stack.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::client::{CallError, Client};
use buttress::{Error, ErrorKind, Outcome, client};

const SECOND: Duration = Duration::from_secs(1);

fn db() -> Client {
    client("db").unlimited().build().expect("is valid")
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

#[tokio::test(start_paused = true)]
async fn a_function_is_called_again_after_an_error_of_its_own_type() {
    let calls = AtomicU32::new(0);
    let answer = db().run(async || match calls.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Err(reset()),
        call => Ok(call),
    });
    assert_eq!(answer.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_last_attempt_comes_back_as_it_was() {
    /// Neither an error, nor `'static`.
    struct Mine<'a>(&'a str, u32);

    let calls = AtomicU32::new(0);
    let text = String::from("shelf 12");
    let shelf = text.as_str();
    let answer = db().run(|| async {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(Mine(shelf, call))
    });
    let Err(CallError::Inner(Mine("shelf 12", 2))) = answer.await else {
        panic!("no error, or another one");
    };
}

#[tokio::test(start_paused = true)]
async fn a_function_that_must_not_run_twice_is_called_once() {
    let db = db();
    let calls = AtomicU32::new(0);
    let charge = || async {
        calls.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(reset())
    };
    db.run_once(charge).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let hangs = || async {
        calls.fetch_add(1, Ordering::Relaxed);
        pending::<Result<(), io::Error>>().await
    };
    let Err(CallError::Stack(error)) = db.run_once(hangs).await else {
        panic!("a hanging function has returned");
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_no_call_of_a_function_that_must_not_run_twice() {
    for (is_retried, expected) in [(false, 0), (true, 1)] {
        let db = client("db").concurrency_limit(1);
        let db = db.retry(|retry| retry.retry_rejections(is_retried));
        let db = db.build().unwrap();
        let takes_the_permit = db.run(async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Error>(())
        });
        let calls = AtomicU32::new(0);
        let charge = db.run_once(async || {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(reset())
        });
        let (first, charged) = tokio::join!(takes_the_permit, charge);
        first.unwrap();
        match charged.unwrap_err() {
            CallError::Inner(_) => assert!(is_retried),
            CallError::Stack(error) => assert_eq!(error.kind(), ErrorKind::BulkheadFull),
        }
        assert_eq!(calls.load(Ordering::Relaxed), expected, "{is_retried}");
    }
}

#[tokio::test(start_paused = true)]
async fn functions_of_all_types_share_one_breaker() {
    let db = db();
    for _ in 0..20 {
        db.run_once(async || Err::<String, _>(reset()))
            .await
            .unwrap_err();
    }
    assert_eq!(db.handle().circuit_breaker().unwrap().state(), State::Open);
    let refused = db.run(async || Ok::<u8, ()>(1)).await;
    let Err(CallError::Stack(error)) = refused else {
        panic!("an open breaker lets a call through");
    };
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
}

#[tokio::test(start_paused = true)]
async fn errors_that_are_the_mistake_of_the_caller_do_not_count() {
    let db = client("db").unlimited();
    let db = db.classify_errors(|error: &io::Error| match error.kind() {
        io::ErrorKind::InvalidInput => Outcome::Success,
        _ => Outcome::Failure,
    });
    let db = db.build().unwrap();
    let calls = AtomicU32::new(0);
    for _ in 0..40 {
        let invalid = db.run(async || {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(io::Error::from(io::ErrorKind::InvalidInput))
        });
        invalid.await.unwrap_err();
    }
    assert_eq!(calls.load(Ordering::Relaxed), 40);
    assert_eq!(
        db.handle().circuit_breaker().unwrap().state(),
        State::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_runs_in_a_spawned_task_and_gives_back_what_it_held_when_it_is_dropped() {
    let db = client("db").concurrency_limit(1).build().unwrap();
    let handle = db.handle();
    let task = tokio::spawn({
        let (db, item) = (db.clone(), String::from("bolts"));
        async move {
            db.run(|| pends(item.clone()))
                .await
                .map_err(CallError::flatten)
        }
    });
    tokio::time::sleep(SECOND).await;
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 1);
    task.abort();
    task.await.unwrap_err();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
    let answer = db.run(async || Ok::<_, Error>("bolts"));
    assert_eq!(answer.await.unwrap(), "bolts");
}

async fn pends(_item: String) -> Result<(), Error> {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_the_stack_are_found_in_those_of_a_call() {
    let answer = db().run(pending::<Result<(), io::Error>>);
    let error = answer.await.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Timeout);
    assert_eq!(
        error.to_string(),
        "\"db\" gave no answer within 2.0s, after 3 of 3 attempts"
    );
}
