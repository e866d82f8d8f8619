//! Replicas of one service, each with a queue.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, rngs::SmallRng};
use tokio::sync::oneshot;
use tower::service_fn;

use super::{Client, Luck, Operation, boxed};
use crate::harness::{Event, World, lock};

/// The mean of the exponential service times at full speed.
pub(super) const SERVICE: Duration = Duration::from_millis(10);

/// Which replica gets an attempt.
#[derive(Clone, Copy)]
pub(super) enum Route {
    /// Any, and the second attempt another one.
    Random,
    /// The one of two with fewer attempts of this client in flight.
    LeastOfTwo,
}

/// What a replica does with an attempt whose caller has gone away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cancelled {
    /// Works on it all the same.
    Served,
    /// Takes it out of the queue; what is being worked on is finished.
    Skipped,
}

pub(super) struct Replicas {
    world: World,
    route: Route,
    cancelled: Cancelled,
    /// When all work takes twice as long.
    slow: Range<Duration>,
    all: Vec<Arc<Replica>>,
    random: Mutex<SmallRng>,
    /// When each attempt began.
    attempts: Mutex<Vec<Duration>>,
}

#[derive(Default)]
struct Replica {
    /// Attempts whose caller waits.
    in_flight: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// When all the work is done that nobody can take out of the queue.
    free_at: Duration,
    is_busy: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

impl Replicas {
    pub(super) fn new(
        world: &World,
        count: usize,
        route: Route,
        cancelled: Cancelled,
        slow: Range<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            route,
            cancelled,
            slow,
            all: (0..count).map(|_| Arc::default()).collect(),
            random: Mutex::new(world.random()),
            attempts: Mutex::default(),
        })
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let replicas = Arc::clone(self);
        boxed(service_fn(move |operation: Arc<Operation>| {
            let replicas = Arc::clone(&replicas);
            async move {
                replicas.answer(&operation).await;
                Ok::<_, tower::BoxError>(())
            }
        }))
    }

    /// When each attempt began, in order.
    pub(super) fn attempts(&self) -> Vec<Duration> {
        lock(&self.attempts).clone()
    }

    async fn answer(&self, operation: &Operation) {
        let began = self.world.now();
        self.world.record(&Event::Attempt);
        lock(&self.attempts).push(began);
        let replica = Arc::clone(self.choose(operation));
        let Luck { work, .. } = operation.attempt();
        let work = SERVICE.mul_f64(-work.ln());

        let _in_flight = InFlight::of(&replica);
        if self.cancelled == Cancelled::Served {
            let done = {
                let mut queue = lock(&replica.queue);
                queue.free_at = self.done(began.max(queue.free_at), work);
                queue.free_at
            };
            self.world.sleep_until(done).await;
        } else {
            let turn = replica.turn().await;
            let done = self.done(self.world.now(), work);
            let _rest = Rest {
                world: self.world.clone(),
                done,
                turn: Some(turn),
            };
            self.world.sleep_until(done).await;
        }
    }

    fn choose(&self, operation: &Operation) -> &Arc<Replica> {
        let count = self.all.len();
        let [one, other] = match self.route {
            Route::Random => {
                let [first, second] = operation.luck.map(|luck| 1.0 - luck.route);
                let first = (first * count as f64) as usize;
                let off = 1 + (second * (count - 1) as f64) as usize;
                let chosen = (first + off * operation.attempts()) % count;
                [chosen, chosen]
            }
            Route::LeastOfTwo => {
                let mut random = lock(&self.random);
                let one = random.random_range(..count);
                [one, (one + random.random_range(1..count)) % count]
            }
        };
        let load = |replica: usize| self.all[replica].in_flight.load(Ordering::Relaxed);
        let least = if load(other) < load(one) { other } else { one };
        &self.all[least]
    }

    /// When this much work is done that begins at `start`.
    fn done(&self, start: Duration, work: Duration) -> Duration {
        let Range { start: slow, end } = self.slow;
        let before = slow.saturating_sub(start);
        if work <= before || start >= end {
            return start + work;
        }
        let (start, left) = (start + before, work.saturating_sub(before));
        let during = end.saturating_sub(start) / 2;
        if left <= during {
            start + 2 * left
        } else {
            end + left.saturating_sub(during)
        }
    }
}

impl Replica {
    async fn turn(self: &Arc<Self>) -> Turn {
        let turn = {
            let mut queue = lock(&self.queue);
            if queue.is_busy {
                let (sender, turn) = oneshot::channel();
                queue.waiting.push_back(sender);
                turn
            } else {
                queue.is_busy = true;
                return Turn(Some(Arc::clone(self)));
            }
        };
        turn.await.expect("a turn is passed on until the run ends")
    }
}

/// The right to be worked on, which goes to the next in the queue who still waits.
struct Turn(Option<Arc<Replica>>);

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(replica) = self.0.take() else {
            return;
        };
        let mut turn = Self(Some(replica));
        while let Some(replica) = turn.0.take() {
            let next = {
                let mut queue = lock(&replica.queue);
                queue.is_busy = !queue.waiting.is_empty();
                queue.waiting.pop_front()
            };
            if let Some(next) = next {
                // Whoever has gone away gives it back.
                match next.send(Self(Some(replica))) {
                    Ok(()) => return,
                    Err(back) => turn = back,
                }
            }
        }
    }
}

/// Work that goes on until it is done, whether somebody waits for it or not.
struct Rest {
    world: World,
    done: Duration,
    turn: Option<Turn>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.world.now() < self.done {
            let (world, done, turn) = (self.world.clone(), self.done, self.turn.take());
            tokio::spawn(async move {
                world.sleep_until(done).await;
                drop(turn);
            });
        }
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn of(replica: &'a Replica) -> Self {
        replica.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(&replica.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
