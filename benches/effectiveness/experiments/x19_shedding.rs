//! X19, its second part: a server at twice its capacity that turns calls away.
//!
//! Ten workers of 20 ms can do 500 calls a second, and one client wants 1,000. When a call would wait for a worker for
//! more than 20 ms, the server says no: with 429 or 503, or with `RESOURCE_EXHAUSTED` or `UNAVAILABLE` of gRPC. Saying no takes a
//! worker 1 ms, so the more a client asks, the less it gets.
//!
//! 429 and `RESOURCE_EXHAUSTED` are words about the caller, so by default they concern one call alone; with `one_quota()` they
//! pause the rate limit and shrink the adaptive limit of the client. 503 and `UNAVAILABLE` are words about the server. One that
//! answers other calls is not down, so 503, and `UNAVAILABLE` with a time, count for the circuit breaker only while nothing is
//! answered well. Goodput and load, in percent of what the server can do; without protection they are 95 and 200:
//!
//! | the server says | unlimited | adaptive limit | adaptive limit, one quota |
//! |---|---|---|---|
//! | 429, `RESOURCE_EXHAUSTED` | 94, 213 | 94, 213 | 99.9, 101 |
//! | the same, with 1 s to wait | 94, 213 | 94, 213 | 19, 19 |
//! | 503 | 93, 227 | 99.9, 101 | 99.9, 101 |
//! | `UNAVAILABLE` | 7, 13 | 8, 14 | 8, 14 |
//! | 503, `UNAVAILABLE`, with 1 s to wait | 94, 213 | 19, 19 | 19, 19 |
//!
//! An adaptive limit finds the capacity of a server that sheds with 503, and with 429 if that is said to be about all calls.
//! An `UNAVAILABLE` without a time is also what clients get whose connections fail: more than half of the attempts fail, nothing
//! tells the server from one that is down, and the breaker opens. A server of gRPC should shed with `RESOURCE_EXHAUSTED`, or
//! name a time. A server that asks for a second gets it from a client with a rate limit, for all its calls, so it should
//! name a time only if it wants no call at all.
//!
//! Not scaled: the stack and its budget are as users get them.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::ready,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    BoxError,
    bulkhead::Aimd,
    http::{HttpReplay, grpc, standard},
    rate_limit::Rate,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, Variant, World, boxed, lock, millis_at,
    poisson, simulate,
};

const WORKERS: usize = 10;
const SERVICE: Duration = Duration::from_millis(20);
const REFUSAL: Duration = Duration::from_millis(1);
/// The longest wait for a worker.
const MAX_WAIT: Duration = Duration::from_millis(20);
const CAPACITY: f64 = 500.0;
/// Far above all that happens, so that only a pause counts.
const MAX_RATE: u32 = 100_000;

/// The way in which the server says no.
#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    TooManyRequests,
    ServiceUnavailable,
    ResourceExhausted,
    Unavailable,
}
use Refusal::{ResourceExhausted, ServiceUnavailable, TooManyRequests, Unavailable};

/// What is between the callers and the server.
#[derive(Clone, Copy)]
enum Protection {
    Nothing,
    /// The standard stack as it is, without a limit.
    Standard,
    /// With an adaptive limit and a rate limit.
    Limits {
        one_quota: bool,
    },
}
use Protection::{Limits, Nothing, Standard};

const STANDARD: &str = "buttress, unlimited";
const LIMITS: &str = "adaptive limit";
const ONE_QUOTA: &str = "the same, one quota";
const VARIANTS: [Variant<Protection>; 4] = [
    ("nothing", Nothing),
    (STANDARD, Standard),
    (LIMITS, Limits { one_quota: false }),
    (ONE_QUOTA, Limits { one_quota: true }),
];
const REFUSALS: [(&str, Refusal); 4] = [
    ("429", TooManyRequests),
    ("503", ServiceUnavailable),
    ("RESOURCE_EXHAUSTED", ResourceExhausted),
    ("UNAVAILABLE", Unavailable),
];

pub(crate) fn run(form: Form) -> Report {
    let tables = REFUSALS.iter().flat_map(|&(name, refusal)| {
        [None, Some(1)].map(|retry_after| table(form, name, refusal, retry_after))
    });
    Report::new(
        "X19 shedding: a server at twice its capacity that says no",
        tables.collect(),
    )
}

/// The server asks to be left alone for so many seconds, or does not say.
fn table(form: Form, name: &str, refusal: Refusal, retry_after: Option<u64>) -> Table {
    let seconds = form.pick(15, 60);
    let results = Results::new(&VARIANTS, form.pick(1, 5), |&protection, seed| {
        episode(seed, refusal, retry_after, protection, seconds).outcome
    });
    let title = |row: &str| match retry_after {
        None => format!("{name}: {row}"),
        Some(after) => format!("{name}, {after} s: {row}"),
    };
    let mut table = Table::new(form, &VARIANTS);
    // Those that learn from this refusal, those whose callers get as much as without protection, and those that lose.
    let (learn, leave, lose): (&[_], &[_], &[_]) = match (refusal, retry_after) {
        (ServiceUnavailable, None) => (&[LIMITS, ONE_QUOTA], &[STANDARD], &[]),
        (TooManyRequests | ResourceExhausted, None) => (&[ONE_QUOTA], &[STANDARD, LIMITS], &[]),
        (TooManyRequests | ResourceExhausted, Some(_)) => (&[], &[STANDARD, LIMITS], &[ONE_QUOTA]),
        (Unavailable, None) => (&[], &[], &[STANDARD, LIMITS, ONE_QUOTA]),
        (ServiceUnavailable | Unavailable, Some(_)) => (&[], &[STANDARD], &[LIMITS, ONE_QUOTA]),
    };
    table.row(title("goodput, %"), 1, results.cells(|o| o.goodput));
    for column in learn {
        table.goal(column, Goal::AtLeast(99.0));
    }
    for column in leave {
        // A retry after a 503 without a time costs half as many tokens as after other overloads: it may be a fault and no overload.
        table.goal(column, Goal::AtLeast(93.0));
    }
    for column in lose {
        // The breaker is open, or the client keeps away for as long as it was asked to.
        table.goal(column, Goal::AtLeast(5.0));
    }
    table.row(title("load, %"), 0, results.cells(|o| o.load));
    for column in learn {
        table.goal(column, Goal::AtMost(105.0));
    }
    for column in leave {
        table.goal(column, Goal::AtMost(230.0));
    }
    table.row(title("p99, ms"), 0, results.cells(|o| o.p99));
    table
}

/// What came of the calls: in percent of the calls that the server can do, and in milliseconds.
struct Shedding {
    goodput: f64,
    load: f64,
    p99: f64,
}

/// A queue before workers that says no instead of growing.
struct Server {
    world: World,
    refusal: Refusal,
    retry_after: Option<u64>,
    state: Mutex<State>,
}

struct State {
    /// When each worker has done all that is assigned to it.
    free_at: BinaryHeap<Reverse<Duration>>,
    requests: Vec<Duration>,
}

impl Server {
    async fn answer(self: Arc<Self>) -> Result<Response<Empty<Bytes>>, BoxError> {
        let now = self.world.now();
        self.world.record(&Event::Attempt);
        let (done, is_refused) = {
            let mut state = lock(&self.state);
            state.requests.push(now);
            let mut worker = state.free_at.peek_mut().expect("there are workers");
            let begins = now.max(worker.0);
            let is_refused = begins > now + MAX_WAIT;
            worker.0 = begins + if is_refused { REFUSAL } else { SERVICE };
            (
                if is_refused { now + REFUSAL } else { worker.0 },
                is_refused,
            )
        };
        self.world.sleep_until(done).await;
        let answer = if is_refused {
            self.refuse()
        } else {
            Response::builder().header("grpc-status", 0)
        };
        Ok(answer.body(Empty::new())?)
    }

    fn refuse(&self) -> http::response::Builder {
        let answer = Response::builder();
        let (answer, name, unit) = match self.refusal {
            TooManyRequests => (answer.status(429), "retry-after", 1),
            ServiceUnavailable => (answer.status(503), "retry-after", 1),
            ResourceExhausted => (
                answer.header("grpc-status", 8),
                "grpc-retry-pushback-ms",
                1_000,
            ),
            Unavailable => (
                answer.header("grpc-status", 14),
                "grpc-retry-pushback-ms",
                1_000,
            ),
        };
        match self.retry_after {
            Some(after) => answer.header(name, after * unit),
            None => answer,
        }
    }

    /// The client of this server.
    fn client(self: &Arc<Self>, protection: Protection) -> Client {
        /// A stack for either protocol.
        macro_rules! stack {
            ($stack:expr) => {{
                let stack = $stack.unlimited().seed(self.world.seed());
                let stack = if let Limits { one_quota } = protection {
                    let limit = Aimd::between(5, 1_000);
                    let rate = Rate::per_second(MAX_RATE);
                    let stack = stack.concurrency_limit(limit).rate_limit(rate, |it| it);
                    if one_quota { stack.one_quota() } else { stack }
                } else {
                    stack
                };
                stack.build().expect("the configuration is valid")
            }};
        }

        let server = Arc::clone(self);
        let server = service_fn(move |_: Request<Empty<Bytes>>| Arc::clone(&server).answer());
        let is_grpc = matches!(self.refusal, ResourceExhausted | Unavailable);
        if let Nothing = protection {
            unit(server)
        } else if is_grpc {
            let replay = HttpReplay::new().idempotent_paths(|_| true);
            unit(stack!(grpc::standard("api").replay(replay)).layer(server))
        } else {
            unit(stack!(standard("api")).layer(server))
        }
    }
}

/// A client whose calls have neither request nor answer.
fn unit<S, B>(client: S) -> Client
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let client = client.map_request(|()| Request::new(Empty::new()));
    let client = client.map_err(Into::into);
    boxed(client.and_then(|answer: Response<B>| {
        let status = answer.headers().get("grpc-status");
        let is_good = answer.status() == 200 && status.is_none_or(|status| status == "0");
        let answer = is_good.then_some(());
        ready(answer.ok_or_else(|| BoxError::from("the server said no")))
    }))
}

fn episode(
    seed: u64,
    refusal: Refusal,
    retry_after: Option<u64>,
    protection: Protection,
    seconds: u64,
) -> Run<Shedding> {
    simulate(1, seed, async |world| {
        let state = State {
            free_at: vec![Reverse(Duration::ZERO); WORKERS].into(),
            requests: Vec::new(),
        };
        let server = Arc::new(Server {
            world: world.clone(),
            refusal,
            retry_after,
            state: Mutex::new(state),
        });
        let client = server.client(protection);
        let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
        // The first seconds are those in which limits are found.
        let counted: Range<_> = Duration::from_secs(5)..Duration::from_secs(seconds);
        for arrived in poisson(world.random(), 2.0 * CAPACITY, counted.end) {
            world.sleep_until(arrived).await;
            let (log, now) = (Arc::clone(&latencies), world.clone());
            let is_counted = counted.contains(&arrived);
            let done = move |answer: Result<(), _>| {
                if answer.is_ok() && is_counted {
                    lock(&log).push(now.now().saturating_sub(arrived));
                }
            };
            world.begin(&client, done).await;
        }
        world.sleep(Duration::from_secs(20)).await;
        let mut latencies = std::mem::take(&mut *lock(&latencies));
        latencies.sort_unstable();
        let requests = &lock(&server.state).requests;
        let sent = requests.iter().filter(|at| counted.contains(at)).count();
        let possible = CAPACITY * counted.end.saturating_sub(counted.start).as_secs_f64();
        Shedding {
            goodput: 100.0 * latencies.len() as f64 / possible,
            load: 100.0 * sent as f64 / possible,
            p99: millis_at(0.99, &latencies),
        }
    })
}
