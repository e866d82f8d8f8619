//! What is measured: sections of rows.

use std::cell::Cell;
use std::future::Ready;
use std::thread;
use std::time::Duration;

use metrics::NoopRecorder;
use tower::Layer;

use crate::check::{self, Duty};
use crate::measure::{
    Bench, Callee, Native, RUNTIME, Time, Tower, is_rejected, passes, timed, timed_inside,
};
use crate::services::{Answer, AtOnce, PendingOnce, Scripted};
use crate::shared::{on_two_threads, on_workers};

/// How the rows of a section are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// On one thread, without input and output.
    Alone,
    /// By several threads on one state.
    Shared,
    /// Requests to a server, of which the CPU time of the client's thread is taken.
    Http,
}

impl Kind {
    /// Of which a turn consists at least.
    pub(crate) fn turn(self) -> Duration {
        Duration::from_micros(match self {
            // So short that most of the time no other process of a busy machine comes between, long enough for the clock.
            Self::Alone => 200,
            // Starting threads must not show.
            Self::Shared => 1_000,
            // Nor must starting tasks, and to go to sleep is a part of it.
            Self::Http => 5_000,
        })
    }

    /// The name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Shared => "shared",
            Self::Http => "http",
        }
    }
}

pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// What one has to know to read it.
    pub(crate) note: &'static str,
    pub(crate) rounds: usize,
    /// The first one is the unit.
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) by: &'static str,
    pub(crate) name: &'static str,
    /// The bytes that the layer adds to the inner future: less than nothing if that is in a box.
    pub(crate) future: isize,
    pub(crate) run: Box<dyn Fn(u32) -> Time>,
    /// Each panics if the layer does not do what it is for.
    pub(crate) checks: Vec<Box<dyn Fn()>>,
}

/// Calls that pass, through a layer whose inner service answers at once.
pub(crate) fn row<L>(by: &'static str, name: &'static str, layer: &L) -> Row
where
    L: Layer<AtOnce, Service: Bench + Clone>,
{
    let service = layer.layer(AtOnce);
    fresh(by, name, move || Tower(service.clone()))
}

/// The same with an inner service that is pending once.
pub(crate) fn pending<L>(by: &'static str, name: &'static str, layer: &L) -> Row
where
    L: Layer<PendingOnce, Service: Bench + Clone>,
{
    let service = layer.layer(PendingOnce);
    fresh(by, name, move || Tower(service.clone()))
}

/// The native form of seatbelt.
pub(crate) fn native<S>(name: &'static str, service: S) -> Row
where
    S: layered::Service<u64, Out = Answer> + Clone + 'static,
{
    fresh("seatbelt", name, move || Native(service.clone()))
}

/// Calls that pass, through a service that is made anew in each round.
pub(crate) fn fresh<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
) -> Row {
    in_rounds(by, name, make, |callee, request| passes(callee, request))
}

/// Calls that are all rejected.
pub(crate) fn rejected<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
) -> Row {
    in_rounds(by, name, make, |callee, request| {
        is_rejected(callee, request);
    })
}

fn in_rounds<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
    call: impl Fn(&mut C, u64) + 'static,
) -> Row {
    let future = beyond(make().future_size());
    Row::new(by, name, future, move |calls| {
        let mut callee = make();
        timed(calls, |request| call(&mut callee, request))
    })
}

/// Calls that pass through a service that has a task of its own, inside the runtime.
pub(crate) fn inside<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
) -> Row {
    in_runtime(by, name, make, |request| Some(request + 1))
}

/// Calls that are all rejected with the help of a timer, inside the runtime.
pub(crate) fn rejected_inside<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
) -> Row {
    in_runtime(by, name, make, |_| None)
}

fn in_runtime<C: Callee>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
    expected: impl Fn(u64) -> Option<u64> + 'static,
) -> Row {
    let future = RUNTIME.block_on(async { beyond(make().future_size()) });
    Row::new(by, name, future, move |calls| {
        timed_inside(calls, &mut make(), &expected)
    })
}

/// Calls on two threads, each with a clone.
pub(crate) fn threads<L>(by: &'static str, name: &'static str, layer: &L) -> Row
where
    L: Layer<AtOnce, Service: Bench + Clone>,
{
    let service = layer.layer(AtOnce);
    threads_with(by, name, move || Tower(service.clone()))
}

pub(crate) fn threads_with<C>(
    by: &'static str,
    name: &'static str,
    make: impl Fn() -> C + 'static,
) -> Row
where
    C: Callee + Send + 'static,
{
    let future = beyond(make().future_size());
    Row::new(by, name, future, move |calls| on_two_threads(calls, &make))
}

/// Calls of many tasks, each with a clone.
pub(crate) fn tasks<L>(by: &'static str, name: &'static str, layer: &L) -> Row
where
    L: Layer<AtOnce, Service: Bench + Clone>,
{
    let service = layer.layer(AtOnce);
    let future = beyond(Tower(service.clone()).future_size());
    Row::new(by, name, future, move |calls| on_workers(calls, &service))
}

fn beyond(future: usize) -> isize {
    future.cast_signed() - size_of::<Ready<Answer>>().cast_signed()
}

impl Row {
    pub(crate) fn new<T: Into<Time>>(
        by: &'static str,
        name: &'static str,
        future: isize,
        run: impl Fn(u32) -> T + 'static,
    ) -> Self {
        Self {
            by,
            name,
            future,
            run: Box::new(move |calls| run(calls).into()),
            checks: Vec::new(),
        }
    }

    /// For a layer that learns from the calls of a second.
    pub(crate) fn learns(mut self) -> Self {
        let run = self.run;
        let has_learned = Cell::new(false);
        self.run = Box::new(move |calls| {
            if !has_learned.replace(true) {
                run(500);
                thread::sleep(Duration::from_millis(1_100));
                run(500);
            }
            run(calls)
        });
        self
    }

    /// As if no recorder were installed.
    pub(crate) fn without_recorder(mut self) -> Self {
        let run = self.run;
        self.run =
            Box::new(move |calls| metrics::with_local_recorder(&NoopRecorder, || run(calls)));
        self
    }

    /// Has it shown that such a layer does what it is for.
    pub(crate) fn does<L>(self, duty: Duty, layer: L) -> Self
    where
        L: Layer<Scripted, Service: Bench> + 'static,
    {
        self.does_with(duty, move |script| Tower(layer.layer(script)))
    }

    pub(crate) fn does_with<C: Callee>(
        mut self,
        duty: Duty,
        make: impl Fn(Scripted) -> C + 'static,
    ) -> Self {
        let label = format!("{} {}", self.by, self.name);
        let check = move || check::check(&label, duty, &make);
        self.checks.push(Box::new(check));
        self
    }

    /// Has it shown by something else.
    pub(crate) fn shows(mut self, check: impl Fn() + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }
}
