//! Calls that several threads make through one state.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tokio::runtime::Runtime;

use crate::measure::{Bench, Callee, RUNTIME, Time, Tower, passes, timed, without_counting};

/// A busy machine often runs threads one after the other, which would show nothing: such a turn is made again. `turn`
/// gives the time of a turn, and the share of it in which all threads were at work.
fn best_of(turn: impl Fn() -> (Time, f64)) -> Time {
    const TURNS: usize = 10;
    /// This share is enough.
    const ENOUGH: f64 = 0.9;
    let mut best = turn();
    for _ in 1..TURNS {
        if best.1 >= ENOUGH {
            break;
        }
        let next = turn();
        if next.1 > best.1 {
            best = next;
        }
    }
    best.0
}

/// The time that it takes two threads to make so many calls each.
pub(crate) fn on_two_threads<C>(calls: u32, make: impl Fn() -> C) -> Time
where
    C: Callee + Send + 'static,
{
    best_of(|| {
        let ball = Arc::new(AtomicUsize::new(0));
        let threads = [0, 1].map(|side| {
            let (mut callee, ball) = (make(), Arc::clone(&ball));
            thread::spawn(move || {
                let _context = RUNTIME.enter();
                meet(side, &ball);
                let before = waited("/proc/thread-self/schedstat");
                let start = Instant::now();
                let calls = || timed(calls, |request| passes(&mut callee, request));
                without_counting(calls);
                let end = Instant::now();
                let lost = waited("/proc/thread-self/schedstat").saturating_sub(before);
                (start, end, lost)
            })
        });
        let threads = threads.map(|thread| thread.join().expect("does not panic"));
        let [(start, end, lost), (other_start, other_end, other_lost)] = threads;
        let whole = (end - start).max(other_end - other_start);
        let lost = lost.max(other_lost);
        let both = end.min(other_end).duration_since(start.max(other_start));
        let at_work = both.saturating_sub(lost).div_duration_f64(whole);
        (Time { whole, lost }, at_work)
    })
}

/// Throws a ball to and fro, which is only done fast if both threads are running.
fn meet(side: usize, ball: &AtomicUsize) {
    const THROWS: usize = 200;
    for throw in 0..THROWS {
        let mine = 2 * throw + side;
        let mut waits = 0_u32;
        while ball.load(Ordering::Acquire) != mine {
            waits += 1;
            if waits > 10_000 {
                thread::yield_now();
            }
            spin_loop();
        }
        ball.store(mine + 1, Ordering::Release);
    }
}

/// How long a thread was ready to run without running, as its file in `/proc` tells.
fn waited(file: &str) -> Duration {
    let text = fs::read_to_string(file).unwrap_or_default();
    let nanos = text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

const TASKS: u32 = 64;
const WORKERS: u32 = 2;

static POOL: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(WORKERS as usize)
        .enable_time()
        .build()
        .expect("a runtime without input and output needs nothing")
});

/// The time that the workers spend, added up, on so many calls of tasks that take turns.
pub(crate) fn on_workers<S: Bench + Clone>(calls: u32, service: &S) -> Time {
    /// So many calls are made before it is the next task's turn.
    const IN_A_ROW: u64 = 16;
    let of_each = calls.div_ceil(TASKS);
    let task = || {
        let mut callee = Tower(service.clone());
        async move {
            for request in 0..u64::from(of_each) {
                assert_eq!(callee.go(request).await, Some(request + 1));
                if request % IN_A_ROW == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let waited = || {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
        let files = threads
            .flatten()
            .map(|thread| thread.path().join("schedstat"));
        files
            .map(|file| waited(&file.to_string_lossy()))
            .sum::<Duration>()
    };
    best_of(|| {
        POOL.block_on(async {
            let before = waited();
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(task())).collect();
            for task in tasks {
                task.await.expect("does not panic");
            }
            let whole = start.elapsed() * WORKERS;
            // A thread that has ended since then is no longer counted.
            let lost = waited().saturating_sub(before);
            // As if exactly so many calls had been made.
            let share = f64::from(calls) / f64::from(of_each * TASKS);
            let time = Time {
                whole: whole.mul_f64(share),
                lost: lost.mul_f64(share),
            };
            (time, 1.0 - lost.div_duration_f64(whole))
        })
    })
}
