//! How a row is measured.

use std::hint::spin_loop;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;
use tower::Service;

use crate::row::{Kind, Row, Section};
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

/// The time of some calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) whole: Duration,
    /// The part of it in which a thread was ready to run, while another process ran.
    pub(crate) lost: Duration,
}

impl From<Duration> for Time {
    fn from(whole: Duration) -> Self {
        let lost = Duration::ZERO;
        Self { whole, lost }
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

/// The costs of one call through a row.
pub(crate) struct Cost {
    pub(crate) nanos: f64,
    /// To the first row of the section, in the same round.
    pub(crate) ratio: f64,
    /// Nanoseconds beyond the first row of the section, in the same round.
    pub(crate) added: f64,
    /// Share of the time.
    pub(crate) lost: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// No section is measured for much longer: on a busy machine, turns on threads are often made again.
const PATIENCE: Duration = Duration::from_secs(15);
/// As many are always measured.
const LEAST_ROUNDS: usize = 5;
/// Of which allocations are counted.
const COUNTED: u32 = 1_000;

/// Measures all rows in turn, round by round, so that a slow moment of the machine hits all of them.
pub(crate) fn measure(section: &Section, rounds: usize, recorder: &PrometheusHandle) -> Vec<Cost> {
    let calls = |row: &Row| calls_in_a_turn(section.kind, row);
    let calls: Vec<_> = section.rows.iter().map(calls).collect();
    let mut times: Vec<Vec<Time>> = vec![Vec::with_capacity(rounds); section.rows.len()];
    let start = Instant::now();
    for round in 0..rounds {
        if round >= LEAST_ROUNDS && start.elapsed() > PATIENCE {
            break;
        }
        for ((times, row), calls) in times.iter_mut().zip(&section.rows).zip(&calls) {
            // Counting would be a part of what allocations cost.
            times.push(without_counting(|| (row.run)(*calls)));
        }
        // As an exporter does once in a while.
        recorder.run_upkeep();
    }
    let nanos = |times: &[Time], calls: u32| -> Vec<f64> {
        let nanos = |time: &Time| time.whole.as_nanos() as f64 / f64::from(calls);
        times.iter().map(nanos).collect()
    };
    let unit = nanos(&times[0], calls[0]);
    let cost = |((row, times), calls): ((&Row, &Vec<Time>), &u32)| {
        let nanos = nanos(times, *calls);
        let pairs = || nanos.iter().zip(&unit);
        let counted = allocation_counter::measure(|| {
            (row.run)(COUNTED);
        });
        let sum = |part: fn(&Time) -> Duration| times.iter().map(part).sum::<Duration>();
        Cost {
            nanos: median(nanos.iter().copied()),
            ratio: median(pairs().map(|(nanos, unit)| nanos / unit)),
            added: median(pairs().map(|(nanos, unit)| nanos - unit)),
            lost: sum(|time| time.lost).div_duration_f64(sum(|time| time.whole)),
            allocations: counted.count_total as f64 / f64::from(COUNTED),
            bytes: counted.bytes_total as f64 / f64::from(COUNTED),
        }
    };
    section
        .rows
        .iter()
        .zip(&times)
        .zip(&calls)
        .map(cost)
        .collect()
}

/// Warms the row up, and tells how many calls take a turn.
fn calls_in_a_turn(kind: Kind, row: &Row) -> u32 {
    const TRIED: u32 = 200;
    let tries = (0..5).map(|_| without_counting(|| (row.run)(TRIED)).whole);
    let best = tries.min().expect("there were some") / TRIED;
    let calls = kind.turn().as_nanos() / best.as_nanos().max(1);
    calls.clamp(10, 50_000) as u32
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

/// Ticks of all processors since the machine was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineTime {
    all: f64,
    stolen: f64,
}

impl MachineTime {
    /// The share that the hypervisor gave to other machines.
    pub(crate) fn stolen_since(self, before: Self) -> f64 {
        (self.stolen - before.stolen) / (self.all - before.all).max(1.0)
    }
}

pub(crate) fn machine_time() -> MachineTime {
    const STOLEN: usize = 7;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks = first.split_whitespace().skip(1).take(STOLEN + 1);
    let ticks: Vec<f64> = ticks.map(|ticks| ticks.parse().unwrap_or(0.0)).collect();
    MachineTime {
        all: ticks.iter().sum(),
        stolen: ticks.get(STOLEN).copied().unwrap_or(0.0),
    }
}
