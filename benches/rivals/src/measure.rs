//! How a row is measured.

use std::hint::spin_loop;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;
use tower::Service;

use crate::row::{Row, Section};
use crate::services::Answer;

/// Turned by what needs tasks or timers; else only there to be found.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_time()
        .build()
        .expect("a runtime without input and output needs nothing")
});

/// A Tower service that can be measured.
pub(crate) trait Bench:
    Service<u64, Response = u64, Error: Send, Future: Send> + Send + 'static
{
}

impl<S> Bench for S where S: Service<u64, Response = u64, Error: Send, Future: Send> + Send + 'static
{}

/// Something that can be called: a Tower service, or a native one of seatbelt.
pub(crate) trait Callee {
    /// One call, polled to its end without a runtime round it. Gives the answer, or nothing after an error.
    fn call(&mut self, request: u64) -> Option<u64>;

    /// One call for those who can wait.
    fn go(&mut self, request: u64) -> impl Future<Output = Option<u64>>;

    /// The bytes of the future of a call.
    fn future_size(&mut self) -> usize;
}

#[derive(Clone)]
pub(crate) struct Tower<S>(pub(crate) S);

impl<S: Bench> Callee for Tower<S> {
    fn call(&mut self, request: u64) -> Option<u64> {
        let mut context = Context::from_waker(Waker::noop());
        if !matches!(self.0.poll_ready(&mut context), Poll::Ready(Ok(()))) {
            return None;
        }
        drive(pin!(self.0.call(request))).ok()
    }

    async fn go(&mut self, request: u64) -> Option<u64> {
        let ready = std::future::poll_fn(|context| self.0.poll_ready(context));
        ready.await.ok()?;
        self.0.call(request).await.ok()
    }

    fn future_size(&mut self) -> usize {
        size_of::<S::Future>()
    }
}

pub(crate) struct Native<S>(pub(crate) S);

impl<S: layered::Service<u64, Out = Answer>> Callee for Native<S> {
    fn call(&mut self, request: u64) -> Option<u64> {
        drive(pin!(self.0.execute(request))).ok()
    }

    async fn go(&mut self, request: u64) -> Option<u64> {
        self.0.execute(request).await.ok()
    }

    fn future_size(&mut self) -> usize {
        size_of_val(&self.0.execute(0))
    }
}

/// Polls until there is an answer: whoever waits for a lock of another thread does not even go to sleep for it.
fn drive<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut polls = 0_u32;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        polls += 1;
        match polls {
            1 => {}
            2..100 => spin_loop(),
            _ => thread::yield_now(),
        }
    }
}

/// The time that `calls` calls of `call` take. Is found by its name when instructions are counted.
#[inline(never)]
pub(crate) fn timed(calls: u32, mut call: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    for request in 0..calls {
        call(u64::from(request));
    }
    start.elapsed()
}

/// The same inside the runtime, for what needs a task or a timer.
#[inline(never)]
pub(crate) fn timed_inside(
    calls: u32,
    callee: &mut impl Callee,
    expected: impl Fn(u64) -> Option<u64>,
) -> Duration {
    RUNTIME.block_on(async {
        let start = Instant::now();
        for request in 0..u64::from(calls) {
            assert_eq!(callee.go(request).await, expected(request));
        }
        start.elapsed()
    })
}

/// The time that it takes two threads to make so many calls each. A busy machine often runs them one after the
/// other, which would show nothing: such a turn is made again.
pub(crate) fn on_two_threads<C>(calls: u32, make: impl Fn() -> C) -> Duration
where
    C: Callee + Send + 'static,
{
    const TURNS: usize = 30;
    let mut best = turn(calls, &make);
    for _ in 1..TURNS {
        if best.1 >= ENOUGH {
            break;
        }
        let next = turn(calls, &make);
        if next.1 > best.1 {
            best = next;
        }
    }
    best.0
}

/// This share of the time of the slower thread, the other one has to be at work as well.
const ENOUGH: f64 = 0.8;

/// The time of the slower thread, and the share of it in which both were at work.
fn turn<C>(calls: u32, make: impl Fn() -> C) -> (Duration, f64)
where
    C: Callee + Send + 'static,
{
    let ball = Arc::new(AtomicUsize::new(0));
    let run = |side| {
        let (mut callee, ball) = (make(), Arc::clone(&ball));
        thread::spawn(move || {
            let _context = RUNTIME.enter();
            meet(side, &ball);
            let start = Instant::now();
            let calls = || timed(calls, |request| passes(&mut callee, request));
            without_counting(calls);
            (start, Instant::now())
        })
    };
    let threads = [run(0), run(1)].map(|thread| thread.join().expect("does not panic"));
    let [(start, end), (other_start, other_end)] = threads;
    let time = (end - start).max(other_end - other_start);
    let both = end.min(other_end).duration_since(start.max(other_start));
    (time, both.as_secs_f64() / time.as_secs_f64())
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

/// The answer shows that the inner service was asked.
pub(crate) fn passes(callee: &mut impl Callee, request: u64) {
    assert_eq!(callee.call(request), Some(request + 1));
}

/// The lack of one shows that the call was rejected.
pub(crate) fn is_rejected(callee: &mut impl Callee, request: u64) {
    assert_eq!(callee.call(request), None);
}

/// What one row was measured to be, for each call.
pub(crate) struct Cost {
    pub(crate) nanos: f64,
    /// To the first row of the section, in the same round.
    pub(crate) ratio: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// So short that most of the time no other process of a busy machine comes between, long enough for the clock.
const TURN: Duration = Duration::from_micros(200);
/// Starting threads must not show.
const TURN_ON_THREADS: Duration = Duration::from_micros(500);
/// Of which allocations are counted.
const COUNTED: u32 = 1_000;

/// Measures all rows in turn, round by round, so that a slow moment of the machine hits all of them.
pub(crate) fn measure(section: &Section, rounds: usize, recorder: &PrometheusHandle) -> Vec<Cost> {
    let calls: Vec<_> = section.rows.iter().map(calls_in_a_turn).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); section.rows.len()];
    for _ in 0..rounds {
        for ((times, row), calls) in times.iter_mut().zip(&section.rows).zip(&calls) {
            // Counting would be a part of what allocations cost.
            times.push(without_counting(|| nanos(row, *calls)));
        }
        // As an exporter does once in a while.
        recorder.run_upkeep();
    }
    let unit = times[0].clone();
    let cost = |(row, times): (&Row, &Vec<f64>)| {
        let ratios = times.iter().zip(&unit).map(|(time, unit)| time / unit);
        let counted = allocation_counter::measure(|| {
            (row.run)(COUNTED);
        });
        Cost {
            nanos: median(times.iter().copied()),
            ratio: median(ratios),
            allocations: counted.count_total as f64 / f64::from(COUNTED),
            bytes: counted.bytes_total as f64 / f64::from(COUNTED),
        }
    };
    section.rows.iter().zip(&times).map(cost).collect()
}

/// Warms the row up, and tells how many calls take a turn.
fn calls_in_a_turn(row: &Row) -> u32 {
    let turn = if row.is_exact { TURN } else { TURN_ON_THREADS };
    let tries = (0..5).map(|_| without_counting(|| nanos(row, 200)));
    let best = tries.min_by(f64::total_cmp).expect("there were some");
    let calls = turn.as_nanos() as f64 / best.max(1.0);
    calls.clamp(10.0, 50_000.0) as u32
}

/// The time of one of so many calls.
fn nanos(row: &Row, calls: u32) -> f64 {
    (row.run)(calls).as_nanos() as f64 / f64::from(calls)
}

/// Allocates without being counted on this thread.
pub(crate) fn without_counting<T>(run: impl FnOnce() -> T) -> T {
    let mut output = None;
    allocation_counter::opt_out(|| output = Some(run()));
    output.expect("has run")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
