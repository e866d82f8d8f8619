//! A simulated run: paused clock, seeded randomness, event log.

use std::{
    future::poll_fn,
    hash::{DefaultHasher, Hash, Hasher},
    iter,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{self, Instant};
use tower::{BoxError, ServiceExt};

use super::Client;

/// One simulated run. Its clones are handles to the same run.
///
/// Tokio's timers tick in milliseconds, also when the clock is paused. So a run can be scaled: with
/// a scale of 1000, one second of tokio's clock stands for a simulated millisecond. All times that
/// go in and come out are simulated ones, only what is handed to a layer goes through
/// [`scaled`](Self::scaled).
#[derive(Clone)]
pub(crate) struct World {
    start: Instant,
    scale: u32,
    state: Arc<Mutex<State>>,
}

struct State {
    random: SmallRng,
    log: DefaultHasher,
}

/// What the event log records, besides when it happened.
#[derive(Hash)]
pub(crate) enum Event {
    /// An attempt reached a server.
    Attempt,
    /// A caller got an answer.
    Success,
    /// A caller got an error.
    Failure,
}

/// What came out of a run.
pub(crate) struct Run<T> {
    pub(crate) outcome: T,
    /// Hash of the event log: the same seed gives the same one.
    pub(crate) log: u64,
}

/// Runs `scenario` in a world of its own, which ends when the scenario does.
pub(crate) fn simulate<T>(
    scale: u32,
    seed: u64,
    scenario: impl AsyncFnOnce(&World) -> T,
) -> Run<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be built");
    runtime.block_on(async {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            log: DefaultHasher::new(),
        };
        let world = World {
            start: Instant::now(),
            scale,
            state: Arc::new(Mutex::new(state)),
        };
        let outcome = scenario(&world).await;
        let log = lock(&world.state).log.finish();
        Run { outcome, log }
    })
}

impl World {
    /// The simulated time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed() / self.scale
    }

    /// A simulated duration on tokio's clock.
    pub(crate) fn scaled(&self, simulated: Duration) -> Duration {
        simulated * self.scale
    }

    pub(crate) async fn sleep(&self, simulated: Duration) {
        time::sleep(self.scaled(simulated)).await;
    }

    pub(crate) async fn sleep_until(&self, at: Duration) {
        time::sleep_until(self.start + self.scaled(at)).await;
    }

    /// Moves the clock to `at` exactly, whatever the scale, and much faster than
    /// [`sleep_until`](Self::sleep_until). For runs in which nobody waits for a certain time: a
    /// timer that is due on the way fires late.
    pub(crate) async fn advance_to(&self, at: Duration) {
        time::advance((self.start + self.scaled(at)).saturating_duration_since(Instant::now()))
            .await;
    }

    /// Begins a call, and goes on; its answer goes into the log and to `done`. Only a call that has
    /// to wait gets a task.
    pub(crate) async fn begin(
        &self,
        client: &Client,
        done: impl FnOnce(Result<(), BoxError>) + Send + 'static,
    ) {
        self.begin_call(client.clone().oneshot(()), done).await;
    }

    /// [Begins](Self::begin) a call of any client.
    pub(crate) async fn begin_call(
        &self,
        call: impl Future<Output = Result<(), BoxError>> + Send + 'static,
        done: impl FnOnce(Result<(), BoxError>) + Send + 'static,
    ) {
        let world = self.clone();
        let mut call = Box::pin(async move {
            let answer = call.await;
            world.record(if answer.is_ok() {
                &Event::Success
            } else {
                &Event::Failure
            });
            done(answer);
        });
        let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        if first.is_pending() {
            tokio::spawn(call);
        }
    }

    /// A new stream of random numbers. The order in which streams are taken decides what they hold.
    pub(crate) fn random(&self) -> SmallRng {
        lock(&self.state).random.fork()
    }

    /// A new seed, for a layer.
    pub(crate) fn seed(&self) -> u64 {
        lock(&self.state).random.random()
    }

    pub(crate) fn record(&self, event: &Event) {
        let now = self.now();
        (now, event).hash(&mut lock(&self.state).log);
    }
}

/// A mutex that cannot be poisoned, because a panic ends the run.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the lock held")
}

/// The times of a Poisson process, from now until `until`.
pub(crate) fn poisson(
    mut random: SmallRng,
    per_second: f64,
    until: Duration,
) -> impl Iterator<Item = Duration> {
    let mut at = 0.0;
    iter::repeat_with(move || {
        at -= (1.0 - random.random::<f64>()).ln() / per_second;
        Duration::from_secs_f64(at)
    })
    .take_while(move |at| *at < until)
}
