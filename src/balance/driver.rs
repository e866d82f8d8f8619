//! The task that keeps the endpoints up to date.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;
use tower::discover;

use super::pool::{Change, Pool};
use crate::discover::{Source, unless_it_panics};

/// How many changes are made before other tasks have their turn.
const BATCH: usize = 256;
/// How long a stream is left alone that has failed, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Makes a change of what was discovered.
pub(super) type Found<D, S> =
    fn(discover::Change<<D as Source>::Key, <D as Source>::Service>) -> Change<S>;

/// Why a batch is over.
enum Over {
    /// It is full, or there is no more for now.
    Full,
    Failed,
    /// The stream has ended, or panicked.
    Ended,
}

/// Makes the changes that `discover` finds, until that ends or there is no pool any more.
///
/// The pool ends this task when it is dropped, since a stream that finds nothing would not notice.
pub(super) async fn drive<S, D>(pool: Weak<Pool<S>>, mut discover: Pin<Box<D>>, found: Found<D, S>)
where
    S: Clone,
    D: Source,
{
    let mut pause = PAUSE;
    loop {
        let mut batch = Vec::new();
        let over = poll_fn(|cx| poll_batch(discover.as_mut(), found, cx, &mut batch)).await;
        if !batch.is_empty() {
            pause = PAUSE;
            let Some(pool) = pool.upgrade() else { return };
            pool.change(batch);
        }
        match over {
            Over::Full => yield_now().await,
            Over::Failed => {
                sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MOST);
            }
            Over::Ended => return,
        }
    }
}

/// Takes all changes that there are, up to a full batch. Waits for the first one.
fn poll_batch<S, D: Source>(
    mut discover: Pin<&mut D>,
    found: Found<D, S>,
    cx: &mut Context<'_>,
    batch: &mut Vec<Change<S>>,
) -> Poll<Over> {
    while batch.len() < BATCH {
        let next = || discover.as_mut().poll_change(cx).map_ok(found);
        // What was found before a panic is not lost. A stream that has panicked is not polled again.
        match unless_it_panics(next).unwrap_or(Poll::Ready(None)) {
            Poll::Ready(Some(Ok(change))) => batch.push(change),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Over::Failed),
            Poll::Ready(None) => return Poll::Ready(Over::Ended),
            Poll::Pending if batch.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Over::Full)
}
