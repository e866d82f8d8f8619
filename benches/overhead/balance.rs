//! Calls through a balancer, beside tower's.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use buttress::Balance;
use buttress::balance::{Endpoint, LoadMetric};
use tokio::runtime;
use tower::Layer;
use tower::balance::p2c;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};

use crate::rows::{
    AtOnce, Bench, Row, Section, call, on_threads, row, row_of, threads, tower_timeout,
};
use crate::timed;

pub(crate) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "One thread, balanced over endpoints that are ready at once",
            rows: vec![
                row("tower Timeout (the unit)", "1", tower_timeout(), AtOnce),
                tower("tower Balance, 10, not cloneable", 10),
                tower("tower Balance, 1,000, not cloneable", 1_000),
                ours("Balance, 10, peak EWMA", "2.5", 10, LoadMetric::PeakEwma),
                ours(
                    "Balance, 1,000, peak EWMA",
                    "1.1 × that",
                    1_000,
                    LoadMetric::PeakEwma,
                ),
                ours("Balance, 10, in flight", "", 10, LoadMetric::InFlight),
                cloned("Balance, 10, peak EWMA, cloned for each call", 10),
            ],
        },
        Section {
            title: "Two threads on one balancer, each with a clone; ns per call on each thread",
            rows: vec![
                threads("tower Timeout (the unit)", "1", &tower_timeout()),
                ours_on_threads("Balance, 10, peak EWMA", 10),
                ours_on_threads("Balance, 1,000, peak EWMA", 1_000),
            ],
        },
        Section {
            title: "One thread, balanced, called by a task; tower's with the buffer that shares it",
            rows: by_tasks(1),
        },
        Section {
            title: "Two threads, balanced, called by two tasks; tower's with the buffer that shares it",
            rows: by_tasks(2),
        },
    ]
}

fn balance(endpoints: usize, measure: LoadMetric) -> Balance<AtOnce> {
    let endpoints = (0..endpoints).map(|key| Endpoint::new(key, AtOnce));
    let built = Balance::config("bench").measure(measure).build(endpoints);
    built.expect("the configuration is valid")
}

fn ours(name: &'static str, target: &'static str, endpoints: usize, measure: LoadMetric) -> Row {
    row_of(name, target, balance(endpoints, measure))
}

/// As a server does that clones its state for each request.
fn cloned(name: &'static str, endpoints: usize) -> Row {
    let service = balance(endpoints, LoadMetric::PeakEwma);
    let run = move |calls| timed(calls, |request| call(&mut service.clone(), request));
    Row::new(name, "", run)
}

fn ours_on_threads(name: &'static str, endpoints: usize) -> Row {
    on_threads(name, "", balance(endpoints, LoadMetric::PeakEwma))
}

fn tower(name: &'static str, endpoints: usize) -> Row {
    let run = move |calls| {
        let mut service = tower_balance(endpoints);
        // The first call makes all of them ready.
        call(&mut service, 0);
        timed(calls, |request| call(&mut service, request))
    };
    Row::new(name, "", run)
}

type TowerBalance = p2c::Balance<ServiceList<Vec<PeakEwma<AtOnce>>>, u64>;

fn tower_balance(endpoints: usize) -> TowerBalance {
    const DECAY_NANOS: f64 = 10e9;
    let endpoint = || {
        let default = Duration::from_millis(1);
        PeakEwma::new(AtOnce, default, DECAY_NANOS, CompleteOnResponse::default())
    };
    let endpoints: Vec<_> = std::iter::repeat_with(endpoint).take(endpoints).collect();
    p2c::Balance::new(ServiceList::new::<u64>(endpoints))
}

/// By so many tasks, each on a thread and with a clone: a call of tower's waits for the task of the buffer.
fn by_tasks(tasks: usize) -> Vec<Row> {
    let unit = || tower_timeout().layer(AtOnce);
    let ours = |endpoints| move || balance(endpoints, LoadMetric::PeakEwma);
    let tower = |endpoints| move || Buffer::new(tower_balance(endpoints), 100);
    vec![
        task_row("tower Timeout (the unit)", "1", tasks, unit),
        task_row("tower Buffer, Balance, 10", "", tasks, tower(10)),
        task_row("Balance, 10, peak EWMA", "", tasks, ours(10)),
        task_row("tower Buffer, Balance, 1,000", "", tasks, tower(1_000)),
        task_row("Balance, 1,000, peak EWMA", "", tasks, ours(1_000)),
    ]
}

fn task_row<S: Bench>(
    name: &'static str,
    target: &'static str,
    tasks: usize,
    make: impl FnOnce() -> S,
) -> Row {
    let mut builder = match tasks {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let built = builder.worker_threads(tasks).enable_time().build();
    let runtime = built.expect("a runtime without input and output needs nothing");
    let service = runtime.block_on(async {
        let mut service = make();
        // The first call makes all of tower's endpoints ready.
        calls_of(&mut service, 1).await;
        service
    });
    let run = move |calls| {
        runtime.block_on(async {
            let mut service = service.clone();
            if tasks == 1 {
                return calls_of(&mut service, calls).await;
            }
            let task = || {
                let mut service = service.clone();
                tokio::spawn(async move { calls_of(&mut service, calls).await })
            };
            let tasks: Vec<_> = std::iter::repeat_with(task).take(tasks).collect();
            let mut longest = Duration::ZERO;
            for task in tasks {
                longest = longest.max(task.await.expect("does not panic"));
            }
            longest
        })
    };
    Row::new(name, target, run)
}

/// The time that so many calls take, one after the other.
async fn calls_of<S: Bench>(service: &mut S, calls: u32) -> Duration {
    let start = Instant::now();
    for request in 0..calls {
        let request = u64::from(request);
        assert!(poll_fn(|cx| service.poll_ready(cx)).await.is_ok());
        let answer = service.call(request).await;
        assert!(answer.is_ok_and(|answer| answer == request + 1));
    }
    start.elapsed()
}
