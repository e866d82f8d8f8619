//! Drain: a part that counts the calls in flight and can refuse new calls.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::algorithm::drain::InFlight;
use crate::chassis::{Admit, At, OperationPart, Part, PartFor, Record};
use crate::debug::debug_fields;
use crate::event::EventKind;
use crate::stripe::{stripe, stripes};
use crate::telemetry::{Initial, Listener, Report, Series};
use crate::{Availability, Error, ErrorKind, Mode};

/// Drains a client or a server, and returns the number of its calls in flight. Clones are handles of the same client or
/// server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    in_flight: InFlight,
    /// Notified when a drain begins, and when a call ends or is refused during the drain.
    changed: Notify,
    report: Report,
}

debug_fields!(Shared as Handle { report.name(), in_flight.count(), in_flight.is_draining() });

/// Permit of a call: `true` while the call counts as in flight.
#[derive(Debug, Default)]
pub struct Counted(bool);

impl Handle {
    pub(crate) fn new(name: &str, listener: &Listener) -> Self {
        let refusals = Initial::rejections(ErrorKind::Draining, Mode::Enforce);
        let metrics = Series::of(name, "drain").begin([refusals]);
        let shared = Shared {
            in_flight: InFlight::new(stripes()),
            changed: Notify::new(),
            report: Report::new(metrics, listener.clone()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the name of the client or the server.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.report.name()
    }

    /// Returns the number of calls that have not ended. A call whose body is tracked ends with its body.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.count()
    }

    /// Returns whether new calls are admitted: `true` until a drain begins.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.shared.in_flight.is_draining()
    }

    /// Begins a drain at once, and waits until no call is in flight, but at most for `within`. Returns the number of
    /// calls that are still in flight.
    ///
    /// The drain cannot be undone: all further calls are refused. Calls in flight and their retries go on, also after
    /// `within`, until the process ends. If a drain has already begun, this method waits for the same calls.
    ///
    /// # Cancellation
    ///
    /// The drain begins when the method is called. Dropping the future ends only the wait.
    pub fn drain(&self, within: Duration) -> impl Future<Output = u64> + Send + use<> {
        self.begin();
        let drain = self.clone();
        async move {
            // A call that is being refused counts as in flight for a moment. After all calls have ended, the result is
            // therefore 0 and not the present count.
            let in_flight = match timeout(within, drain.drained()).await {
                Ok(()) => 0,
                Err(_) => drain.in_flight(),
            };
            drain.end(in_flight);
            in_flight
        }
    }

    /// Waits until a drain has begun and no call is in flight.
    ///
    /// It does not begin a drain. Dropping the future changes nothing.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                // Registers before it counts the calls, so that it misses no notification.
                let mut changed = pin!(shared.changed.notified());
                changed.as_mut().enable();
                if shared.in_flight.is_draining() && shared.in_flight.count() == 0 {
                    return;
                }
                changed.await;
            }
        }
    }

    /// Refuses all further calls.
    pub(crate) fn begin(&self) {
        let is_first = self.shared.in_flight.drain();
        self.shared.changed.notify_waiters();
        if is_first {
            let in_flight = self.in_flight();
            let report = &self.shared.report;
            report.tell_change(EventKind::DrainBegan { in_flight });
        }
    }

    /// Reports that the wait for the calls in flight is over.
    pub(crate) fn end(&self, in_flight: u64) {
        let report = &self.shared.report;
        report.tell_change(EventKind::DrainEnded { in_flight });
    }

    #[inline(always)]
    fn enter(&self, permit: &mut Counted, at: &At) -> Result<(), Error> {
        permit.0 = self.shared.in_flight.begin(stripe());
        if permit.0 { Ok(()) } else { self.refuse(at) }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, at: &At) -> Result<(), Error> {
        self.shared.changed.notify_waiters();
        let report = &self.shared.report;
        report.refuse(ErrorKind::Draining, Mode::Enforce, None, at.instant())
    }
}

impl Part for Handle {
    type Ask = ();
    type Permit = Counted;

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.is_ready()
    }

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut Counted, at: &At) -> Admit {
        match self.enter(permit, at) {
            Ok(()) => Admit::Go,
            Err(error) => Admit::Refuse(error),
        }
    }

    #[inline(always)]
    fn settle(&self, permit: &mut Counted, _: &Record<'_>) {
        if mem::take(&mut permit.0) && self.shared.in_flight.end(stripe()) {
            self.shared.changed.notify_waiters();
        }
    }
}

impl OperationPart for Handle {
    #[inline(always)]
    fn begin(&self, permit: &mut Counted, at: &At) -> Result<(), Error> {
        self.enter(permit, at)
    }
}

impl<Req> PartFor<Req> for Handle {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}

impl Availability for Handle {
    /// Returns `true` until a drain begins.
    fn is_available(&self) -> bool {
        self.is_ready()
    }
}
