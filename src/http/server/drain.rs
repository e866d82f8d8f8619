//! Drain: a part that counts the calls in flight and can refuse new calls.

use std::mem;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::algorithm::drain::InFlight;
use crate::chassis::{Admit, At, Part, PartFor, Record};
use crate::debug::debug_fields;
use crate::event::EventKind;
use crate::stripe::{stripe, stripes};
use crate::telemetry::{Initial, Listener, Report, Series};
use crate::{ErrorKind, Mode};

/// The part that counts and refuses the calls of one server.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    in_flight: InFlight,
    /// Notified when a drain begins, and when a call ends or is refused during the drain.
    changed: Notify,
    metrics: Report,
}

debug_fields!(Shared as Drain { metrics.name(), in_flight.count(), in_flight.is_draining() });

/// Permit of a call: `true` while the call counts as in flight.
#[derive(Debug, Default)]
pub struct Counted(bool);

impl Drain {
    pub(super) fn new(name: &str, listener: &Listener) -> Self {
        let refusals = Initial::rejections(ErrorKind::Draining, Mode::Enforce);
        let metrics = Series::of(name, "drain").begin([refusals]);
        let shared = Shared {
            in_flight: InFlight::new(stripes()),
            changed: Notify::new(),
            metrics: Report::new(metrics, listener.clone()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.shared.metrics.name()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.in_flight.is_draining()
    }

    pub(super) fn count(&self) -> u64 {
        self.shared.in_flight.count()
    }

    /// Refuses all further calls.
    pub(super) fn begin(&self) {
        let shared = &*self.shared;
        let is_new = !shared.in_flight.is_draining();
        shared.in_flight.drain();
        shared.changed.notify_waiters();
        if is_new {
            let in_flight = shared.in_flight.count();
            shared
                .metrics
                .tell_change(EventKind::DrainBegan { in_flight });
        }
    }

    /// Waits until a drain has begun and no call is in flight.
    pub(super) async fn drained(&self) {
        let shared = &*self.shared;
        loop {
            // Registers before it counts the calls, so that it misses no end.
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            if shared.in_flight.is_draining() && shared.in_flight.count() == 0 {
                return;
            }
            changed.await;
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, at: &At) -> Admit {
        self.shared.changed.notify_waiters();
        let metrics = &self.shared.metrics;
        let refused = metrics.refuse(ErrorKind::Draining, Mode::Enforce, None, at.instant());
        refused.map_or_else(Admit::Refuse, |()| Admit::Go)
    }
}

impl Part for Drain {
    type Ask = ();
    type Permit = Counted;

    #[inline(always)]
    fn is_open(&self) -> bool {
        !self.is_draining()
    }

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut Counted, at: &At) -> Admit {
        permit.0 = self.shared.in_flight.begin(stripe());
        if permit.0 { Admit::Go } else { self.refuse(at) }
    }

    #[inline(always)]
    fn settle(&self, permit: &mut Counted, _: &Record<'_>) {
        if mem::take(&mut permit.0) && self.shared.in_flight.end(stripe()) {
            self.shared.changed.notify_waiters();
        }
    }
}

impl<Req> PartFor<Req> for Drain {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}
