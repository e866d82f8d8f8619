//! Inner services that are not ready: calls wait for them inside the future, under the timeout, and
//! give up their place when they go away.

use crate::common;

use std::sync::Arc;
use std::time::Duration;

use buttress::{Deadline, Error, ErrorKind};
use common::{Client, End, Kind, Layers, Plan, Probe, Response, Task, kind as kind_of};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::{Service, ServiceExt};

const MINUTE: Duration = Duration::from_secs(60);
const WORK: Duration = Duration::from_millis(100);
const CALLS: u32 = 5;

/// What is between the layers and the inner service, and is full most of the time.
#[derive(Clone, Copy, Debug)]
enum Queue {
    Limit,
    Buffer,
}

impl Queue {
    fn client(self, layers: &Layers, probe: Probe) -> Client {
        let limit = ConcurrencyLimit::new(probe, 1);
        match self {
            Self::Limit => layers.around(limit),
            Self::Buffer => layers.around(Buffer::new(limit, 1)),
        }
    }
}

/// Checks that the calls of `start` end well, one after the other and without a pause.
async fn take_turns(start: impl AsyncFn(&mut Client, &mut JoinSet<Result<Response, Error>>)) {
    for kind in Kind::ALL {
        for queue in [Queue::Limit, Queue::Buffer] {
            let mut script = vec![Plan::answer(0, End::Late(WORK)); CALLS as usize];
            if kind.retries() {
                script.insert(0, Plan::FAILS);
            }
            let probe = Probe::new(&script);
            let mut client = queue.client(&Layers::new(kind), probe.clone());
            let mut calls = JoinSet::new();
            let started = Instant::now();
            let results = timeout(MINUTE, async {
                for _ in 0..CALLS {
                    start(&mut client, &mut calls).await;
                }
                calls.join_all().await
            });
            let results = results.await.expect("no deadlock");
            assert!(
                results.iter().all(Result::is_ok),
                "{kind:?} {queue:?}: {results:?}"
            );
            let time = started.elapsed();
            let expected = WORK * CALLS..WORK * CALLS + WORK / 2;
            assert!(expected.contains(&time), "{kind:?} {queue:?}: {time:?}");
            assert_eq!(probe.calls(), script.len(), "{kind:?} {queue:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_from_one_handle_take_turns() {
    take_turns(async |client, calls| {
        client.ready().await.unwrap();
        calls.spawn(client.call(1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn calls_from_many_handles_take_turns() {
    take_turns(async |client, calls| {
        calls.spawn(client.clone().oneshot(1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_ready_is_waited_for_within_the_call() {
    for kind in Kind::ALL {
        let probe = Probe::new(&[Plan::readiness(0, End::Held); 100]);
        let layers = Layers::new(kind);
        let mut client = layers.around(probe.clone());
        let mut calls = JoinSet::new();
        let started = Instant::now();
        for _ in 0..2 {
            client.ready().await.unwrap();
            calls.spawn(client.call(1));
            calls.spawn(client.clone().oneshot(1));
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "{kind:?}");
        let results = timeout(MINUTE, async {
            let mut results = Vec::new();
            while let Some(result) = calls.join_next().await {
                results.push((kind_of(&result.unwrap()), started.elapsed()));
            }
            results
        })
        .await;
        match (kind.patience(), results) {
            (Some(patience), Ok(results)) => {
                let expected = match kind {
                    Kind::Deadline => ErrorKind::DeadlineExceeded,
                    _ => ErrorKind::Timeout,
                };
                assert_eq!(results.len(), 4, "{kind:?}");
                for (error, time) in results {
                    assert_eq!(error, Some(expected), "{kind:?}");
                    let overrun = time
                        .checked_sub(patience)
                        .unwrap_or_else(|| panic!("{kind:?}: {time:?} {patience:?}"));
                    assert!(overrun < Duration::from_millis(10), "{kind:?}: {time:?}");
                }
            }
            (None, Err(_still_waiting)) => {}
            (patience, results) => panic!("{kind:?}: {results:?} with {patience:?}"),
        }
        calls.shutdown().await;
        layers.assert_nothing_is_held(&format!("{kind:?}"));
        assert_eq!((probe.calls(), probe.seen().held), (0, 0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_ends_one_call_and_not_the_next() {
    for kind in Kind::ALL {
        for pending in 0..2 {
            let probe = Probe::new(&[Plan::readiness(pending, End::Error)]);
            let mut client = Layers::new(kind).around(probe.clone());
            let result = client.ready().await.unwrap().call(1).await;
            assert_eq!(result.is_ok(), kind.recovers(), "{kind:?}: {result:?}");
            client.ready().await.unwrap().call(1).await.unwrap();
        }
    }
}

/// A client over a concurrency limit whose only permit the test has taken.
struct Busy {
    layers: Layers,
    client: Client,
    permit: OwnedSemaphorePermit,
}

impl Busy {
    fn new(kind: Kind) -> Self {
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&semaphore).try_acquire_owned();
        let layers = Layers::new(kind);
        let limit = ConcurrencyLimit::with_semaphore(Probe::new(&[]), semaphore);
        Self {
            client: layers.around(limit),
            layers,
            permit: permit.expect("there is one"),
        }
    }
}

/// Checks that a call on a further handle is let through at once.
fn assert_free(client: &Client, case: &str) {
    let mut call = client.clone().oneshot(1);
    assert!(Task::default().poll(&mut call).is_ready(), "{case}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_takes_the_place_of_its_handle_along() {
    for kind in Kind::ALL {
        let mut busy = Busy::new(kind);
        let task = Task::default();
        task.poll_ready(&mut busy.client);
        let mut call = busy.client.call(1);
        drop(busy.permit);
        assert!(task.poll(&mut call).is_ready(), "{kind:?}");
        drop(call);
        assert_free(&busy.client, &format!("{kind:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_timed_out_loses_nothing() {
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| kind.patience().is_some())
    {
        let mut busy = Busy::new(kind);
        let waiting = busy.client.ready().await.unwrap().call(1);
        let other = tokio::spawn(busy.client.clone().oneshot(1));
        for result in [waiting.await, other.await.unwrap()] {
            assert!(kind_of(&result).is_some(), "{kind:?}: {result:?}");
        }
        drop(busy.permit);
        for _ in 0..2 {
            assert_free(&busy.client, &format!("{kind:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_dropped_passes_its_place_on() {
    for kind in Kind::ALL {
        for is_granted in [false, true] {
            let mut busy = Busy::new(kind);
            let mut other = busy.client.clone();
            let (first, second) = (Task::default(), Task::default());
            first.poll_ready(&mut busy.client);
            let mut dropped = busy.client.call(1);
            assert!(first.poll(&mut dropped).is_pending());
            second.poll_ready(&mut other);
            let mut waiting = other.call(1);
            assert!(second.poll(&mut waiting).is_pending());
            if is_granted {
                drop(busy.permit);
                assert!(first.was_woken() && !second.was_woken(), "{kind:?}");
                drop(dropped);
            } else {
                drop(dropped);
                drop(busy.permit);
            }
            assert!(second.was_woken(), "{kind:?} {is_granted}");
            assert!(
                second.poll(&mut waiting).is_ready(),
                "{kind:?} {is_granted}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_gives_its_place_up() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.breaks()) {
        let mut busy = Busy::new(kind);
        Task::default().poll_ready(&mut busy.client);
        busy.layers.breaker().force_open();
        let result = busy.client.call(1).await;
        assert_eq!(kind_of(&result), Some(ErrorKind::CircuitOpen), "{kind:?}");
        busy.layers.breaker().reset();
        drop(busy.permit);
        assert_free(&busy.client, &format!("{kind:?}"));
    }
    for kind in Kind::TIMELY {
        let mut busy = Busy::new(kind);
        Task::default().poll_ready(&mut busy.client);
        let late = Deadline::at(Instant::now());
        let result = late.scope(async { busy.client.call(1).await }).await;
        assert_eq!(
            kind_of(&result),
            Some(ErrorKind::DeadlineExceeded),
            "{kind:?}"
        );
        drop(busy.permit);
        assert_free(&busy.client, &format!("{kind:?}"));
    }
}
