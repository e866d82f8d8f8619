//! Calls through a balancer, beside tower's.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use buttress::Balance;
use buttress::balance::{Endpoint, Measure};
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};

use crate::rows::{
    AtOnce, Bench, CALLS, CALLS_ON_THREADS, Row, Section, call, row, threads, tower_timeout,
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
                ours("Balance, 10, peak EWMA", "2.5", 10, Measure::PeakEwma),
                ours(
                    "Balance, 1,000, peak EWMA",
                    "1.1 × that",
                    1_000,
                    Measure::PeakEwma,
                ),
                ours("Balance, 10, in flight", "", 10, Measure::InFlight),
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
    ]
}

fn balance(endpoints: usize, measure: Measure) -> Balance<AtOnce> {
    let endpoints = (0..endpoints).map(|key| Endpoint::new(key, AtOnce));
    let built = Balance::config("bench").measure(measure).build(endpoints);
    built.expect("the configuration is valid")
}

fn ours(name: &'static str, target: &'static str, endpoints: usize, measure: Measure) -> Row {
    let service = balance(endpoints, measure);
    let run = move |calls| {
        let mut service = service.clone();
        timed(calls, |request| call(&mut service, request))
    };
    Row {
        name,
        target,
        calls: CALLS,
        run: Box::new(run),
    }
}

/// As a server does that clones its state for each request.
fn cloned(name: &'static str, endpoints: usize) -> Row {
    let service = balance(endpoints, Measure::PeakEwma);
    let run = move |calls| timed(calls, |request| call(&mut service.clone(), request));
    Row {
        name,
        target: "",
        calls: CALLS,
        run: Box::new(run),
    }
}

fn ours_on_threads(name: &'static str, endpoints: usize) -> Row {
    on_threads(name, balance(endpoints, Measure::PeakEwma))
}

fn on_threads(name: &'static str, service: impl Bench) -> Row {
    let run = move |calls| {
        let barrier = Arc::new(Barrier::new(2));
        let runtime = tokio::runtime::Handle::current();
        let thread = || {
            let (mut service, barrier) = (service.clone(), Arc::clone(&barrier));
            let runtime = runtime.clone();
            std::thread::spawn(move || {
                let _context = runtime.enter();
                barrier.wait();
                timed(calls, |request| call(&mut service, request))
            })
        };
        let threads = [thread(), thread()].map(|thread| thread.join().expect("does not panic"));
        threads[0].max(threads[1])
    };
    Row {
        name,
        target: "",
        calls: CALLS_ON_THREADS,
        run: Box::new(run),
    }
}

fn tower(name: &'static str, endpoints: usize) -> Row {
    const DECAY_NANOS: f64 = 10e9;
    let run = move |calls| {
        let endpoint = || {
            let default = Duration::from_millis(1);
            PeakEwma::new(AtOnce, default, DECAY_NANOS, CompleteOnResponse::default())
        };
        let endpoints: Vec<_> = std::iter::repeat_with(endpoint).take(endpoints).collect();
        let mut service = p2c::Balance::new(ServiceList::new::<u64>(endpoints));
        // The first call makes all of them ready.
        call(&mut service, 0);
        timed(calls, |request| call(&mut service, request))
    };
    Row {
        name,
        target: "",
        calls: CALLS,
        run: Box::new(run),
    }
}
