//! Metrics: a table of all of them, and handles that are looked up once and used without a lock.
//!
//! A lookup by name costs allocations and a lock inside the recorder, so handles are kept. They go stale in two ways: the
//! recorder is installed (or replaced) after they were made, and an exporter with an idle timeout forgets a series that
//! nobody has updated for a while. So handles are renewed when the recorder's address differs from the one they were made
//! with, or when they were last used more than a few seconds ago, five at the most.
//!
//! Every thread keeps its own handles. That makes using them free of locks and of contention, and it
//! needs no reference in the future of each call: a [`Series`] is interned by name and lives as long
//! as the process, like the label values that an exporter keeps. Names are expected to be a closed
//! set, as every metrics label is.

mod changes;
mod handles;
mod series;
mod shown;
pub(crate) mod table;

pub(crate) use handles::Handles;
pub(crate) use series::{Instruments, Series};
pub(crate) use shown::{Gauges, Published, Shown};

use crate::Outcome;

/// The value of the label `outcome` for a call that an inner layer refused.
pub(crate) const REJECTED: &str = "rejected";

impl Outcome {
    /// Returns the value of the label `outcome`.
    #[inline]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Overload { .. } => "overload",
            Self::Throttled { .. } => "throttled",
            Self::Ignored => "ignored",
            Self::Cancelled => "cancelled",
        }
    }
}
