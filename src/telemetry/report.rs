//! Report: the metrics of a layer, and the listener of its events.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::recent;
use super::series::{Instruments, Series};
use crate::callback::Callback;
use crate::debug::debug_fields;
use crate::event::{Event, EventKind};
use crate::{Error, ErrorKind, Mode};

/// A function that is called with each event.
type Hears = dyn Fn(&Event<'_>) + Send + Sync;

/// The listener of a layer, if it has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Listener(Option<Callback<Hears>>);

impl Listener {
    pub(crate) fn new(listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Callback(Arc::new(listener))))
    }

    /// Returns this listener, or `outer` if there is none.
    pub(crate) fn or(&self, outer: &Self) -> Self {
        Self(self.0.clone().or_else(|| outer.0.clone()))
    }
}

/// Reports the decisions of a layer to the metrics of its name and to its own listener.
///
/// Each kind of layer has one method for each decision, in its `metrics.rs`. The method reports to both.
pub(crate) struct Report<I: 'static = ()> {
    series: &'static Series<I>,
    listener: Listener,
}

impl<I> Clone for Report<I> {
    fn clone(&self) -> Self {
        Self {
            series: self.series,
            listener: self.listener.clone(),
        }
    }
}

impl<I> Deref for Report<I> {
    type Target = &'static Series<I>;

    #[inline]
    fn deref(&self) -> &&'static Series<I> {
        &self.series
    }
}

impl<I: Instruments> Report<I> {
    pub(crate) fn new(series: &'static Series<I>, listener: Listener) -> Self {
        Self { series, listener }
    }

    /// Tells the listener, and `tracing` if the feature is enabled. The caller holds no lock.
    #[inline]
    pub(crate) fn tell<'a>(&self, kind: impl FnOnce() -> EventKind<'a>) {
        if self.listener.0.is_some() || is_traced() {
            self.tell_now(kind());
        }
    }

    /// Tells the listener of a change that concerns more than one call, such as a transition, and [keeps](recent) it.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_change(&self, kind: EventKind<'_>) {
        let event = self.event(kind);
        recent::keep(&event);
        self.pass_on(&event);
    }

    fn event<'a>(&self, kind: EventKind<'a>) -> Event<'a> {
        Event {
            name: self.series.name(),
            layer: self.series.part(),
            kind,
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_now(&self, kind: EventKind<'_>) {
        self.pass_on(&self.event(kind));
    }

    fn pass_on(&self, event: &Event<'_>) {
        // A panic would take the permits of the call with it. In a drop during a panic it would abort the process.
        // A panic of the subscriber does not keep the event from the listener.
        #[cfg(feature = "tracing")]
        drop(catch_unwind(AssertUnwindSafe(|| {
            super::trace::trace(event);
        })));
        if let Listener(Some(listener)) = &self.listener {
            drop(catch_unwind(AssertUnwindSafe(|| (listener.0)(event))));
        }
    }

    /// Reports a call that the layer refuses, and returns the error. With [`Mode::Observe`] it reports a call that the
    /// layer would refuse, and returns no error.
    #[inline]
    pub(crate) fn refuse(
        &self,
        reason: ErrorKind,
        mode: Mode,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Result<(), Error> {
        self.refused(reason, mode, retry_after, now);
        match mode {
            Mode::Enforce => Err(Error::rejected(reason, self.name(), retry_after)),
            Mode::Observe => Ok(()),
        }
    }

    /// Reports a call that the layer has refused, or would have refused with [`Mode::Enforce`].
    #[inline]
    pub(crate) fn refused(
        &self,
        reason: ErrorKind,
        mode: Mode,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        self.rejected(reason, mode, now);
        self.tell(|| EventKind::Refused {
            reason,
            mode,
            retry_after,
        });
    }
}

#[cfg(feature = "tracing")]
#[inline]
fn is_traced() -> bool {
    tracing::level_filters::LevelFilter::current() >= tracing::Level::WARN
}

#[cfg(not(feature = "tracing"))]
#[inline]
fn is_traced() -> bool {
    false
}

debug_fields!([I: Instruments] Report<I> { series });
