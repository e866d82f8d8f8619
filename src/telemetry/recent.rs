//! The last changes of each name, kept so that a status can show them.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::SystemTime;

use crate::event::Event;
use crate::sync::lock;

/// The number of changes that are kept for each name.
const KEPT: usize = 32;

/// A change that has happened.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "read by the status")]
pub(crate) struct Change {
    pub(crate) at: SystemTime,
    pub(crate) layer: &'static str,
    /// The event in one line.
    pub(crate) text: String,
}

/// The last changes by name. A name is never removed, like the series of its metrics.
static RECENT: Mutex<Option<HashMap<&'static str, VecDeque<Change>>>> = Mutex::new(None);

/// Keeps a change, and drops the oldest one of its name if there are more than [`KEPT`].
pub(super) fn keep(event: &Event<'_>) {
    let change = Change {
        at: SystemTime::now(),
        layer: event.layer,
        text: event.to_string(),
    };
    let mut recent = lock(&RECENT);
    let changes = recent.get_or_insert_default();
    let changes = changes.entry(event.name).or_default();
    if changes.len() == KEPT {
        changes.pop_front();
    }
    changes.push_back(change);
}

/// Returns the last changes of this name, oldest first; at most 32.
#[allow(dead_code, reason = "read by the status")]
pub(crate) fn recent(name: &str) -> Vec<Change> {
    let recent = lock(&RECENT);
    let changes = recent.as_ref().and_then(|recent| recent.get(name));
    changes
        .map(|changes| changes.iter().cloned().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CircuitBreakerLayer;

    #[test]
    fn the_last_changes_of_a_name_are_kept_without_a_listener() {
        let breaker = CircuitBreakerLayer::new("kept").handle();
        for _ in 0..20 {
            breaker.force_open();
            breaker.reset();
        }
        breaker.force_open();
        let changes = recent("kept");
        assert_eq!(changes.len(), KEPT);
        let last = &changes[KEPT - 1];
        assert_eq!(last.layer, "circuit_breaker");
        assert_eq!(last.text, "kept: circuit breaker closed -> open: forced");
        assert!(changes.is_sorted_by_key(|change| change.at));
        assert!(recent("never").is_empty());
    }
}
