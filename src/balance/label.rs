//! Labels of endpoints in metrics: a few have their keys, and all others share one label.

use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::sync::{Arc, Weak};

use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The label of the endpoints that have none of their own.
const OTHER: &str = "other";

/// The label of one endpoint or of several. It lives as long as a call is in flight on one of them.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) key: Arc<str>,
    /// Place of its handles in each thread. No two existing labels have the same place.
    pub(super) place: usize,
    /// Unique among the labels of this name.
    pub(super) id: u64,
    in_flight: AtomicU64,
}

impl Label {
    pub(super) fn new(key: Arc<str>, place: usize, id: u64) -> Self {
        Self {
            key,
            place,
            id,
            in_flight: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that a call has ended. Returns `true` if no other is in flight.
    #[inline]
    pub(super) fn end(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Shows the number of calls in flight. The end of the last call shows it as well: a thread that is late with an
    /// older number sees this, and shows the number again.
    pub(super) fn show(&self, mut set: impl FnMut(u64)) {
        // A plain load may return an older value.
        let newest = || self.in_flight.fetch_add(0, Ordering::AcqRel);
        let mut calls = newest();
        loop {
            set(calls);
            if calls == 0 {
                return;
            }
            calls = newest();
            if calls > 0 {
                return;
            }
        }
    }
}

/// The labels of one name, at their places. The first label is shared by all endpoints without a label of their own.
#[derive(Default)]
pub(super) struct Directory(Mutex<Vec<Entry>>);

#[derive(Default)]
struct Entry {
    label: Weak<Label>,
    /// Number of present endpoints with this label.
    endpoints: usize,
}

impl Directory {
    /// Returns the label of an endpoint with this key: its own, if no more than `max` have one.
    pub(super) fn enter(&self, key: &Arc<str>, max: u32) -> Arc<Label> {
        static NEXT: StdAtomicU64 = StdAtomicU64::new(0);
        let mut entries = lock(&self.0);
        let own = entries.iter().skip(1);
        let has_room = own.clone().filter(|entry| entry.endpoints > 0).count() < max as usize;
        let has_key = |entry: &Entry| entry.label.upgrade().is_some_and(|label| label.key == *key);
        let mut former = own.clone();
        let former = former.position(|entry| (has_room || entry.endpoints > 0) && has_key(entry));
        // Calls on an endpoint that has gone may still count in a label: such a label is not free.
        let is_free = |entry: &Entry| entry.endpoints == 0 && entry.label.strong_count() == 0;
        let place = match former {
            Some(former) => former + 1,
            None if !has_room || **key == *OTHER => 0,
            None => 1 + own.clone().position(is_free).unwrap_or(own.len()),
        };
        if entries.len() <= place {
            entries.resize_with(place + 1, Entry::default);
        }
        let entry = &mut entries[place];
        entry.endpoints += 1;
        entry.label.upgrade().unwrap_or_else(|| {
            let key = if place == 0 {
                OTHER.into()
            } else {
                Arc::clone(key)
            };
            let label = Label::new(key, place, NEXT.fetch_add(1, Ordering::Relaxed));
            let label = Arc::new(label);
            entry.label = Arc::downgrade(&label);
            label
        })
    }

    /// Notes that an endpoint with this label has gone.
    pub(super) fn leave(&self, label: &Label) {
        lock(&self.0)[label.place].endpoints -= 1;
    }
}

/// Values that are shown for the endpoints of a label.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) label: Arc<Label>,
    /// Number of endpoints.
    pub(super) endpoints: usize,
    /// Number of them that are neither ejected nor unhealthy.
    pub(super) ready: usize,
    /// The greatest latency estimate, in seconds.
    pub(super) latency: f64,
}

impl Shown {
    /// Returns the values to show when all endpoints of the label have gone.
    pub(super) fn none(label: &Arc<Label>) -> Self {
        Self {
            label: Arc::clone(label),
            endpoints: 0,
            ready: 0,
            latency: 0.0,
        }
    }

    pub(super) fn add(&mut self, is_ready: bool, latency: f64) {
        self.endpoints += 1;
        self.ready += usize::from(is_ready);
        self.latency = self.latency.max(latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn enter(directory: &Directory, key: &str) -> Arc<Label> {
        directory.enter(&key.into(), 2)
    }

    #[test]
    fn as_many_endpoints_as_may_have_a_label_of_their_own() {
        let directory = Directory::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|key| enter(&directory, key));
        assert_eq!(
            [&*a.key, &*b.key, &*c.key, &*d.key],
            ["a", "b", "other", "other"]
        );
        assert!(
            Arc::ptr_eq(&a, &enter(&directory, "a")),
            "one key, one label"
        );
        directory.leave(&b);
        assert_eq!(&*enter(&directory, "e").key, "e");
        directory.leave(&a);
        assert_eq!(
            &*enter(&directory, "f").key,
            "other",
            "one more has the key"
        );
        directory.leave(&a);
        assert_eq!(&*enter(&directory, "f").key, "f");
        assert_eq!(&*enter(&directory, "b").key, "other", "it was given away");
    }

    #[test]
    fn a_place_is_given_away_when_nobody_counts_by_its_label_any_more() {
        let directory = Directory::default();
        let (a, b) = (enter(&directory, "a"), enter(&directory, "b"));
        directory.leave(&a);
        let c = enter(&directory, "c");
        assert_ne!(a.place, c.place);
        let (place, id) = (b.place, b.id);
        directory.leave(&b);
        drop(b);
        let d = enter(&directory, "d");
        assert_eq!(d.place, place);
        assert_ne!(d.id, id);
    }

    #[test]
    fn the_end_of_the_last_call_is_shown_whoever_is_late() {
        let directory = Directory::default();
        let label = enter(&directory, "a");
        let gauge = Cell::new(9);
        label.begin();
        label.begin();
        label.show(|calls| gauge.set(calls));
        assert_eq!(gauge.get(), 2);
        assert!(!label.end());
        assert!(label.end());
        label.begin();
        // It ends while it is being shown.
        label.show(|calls| {
            if calls == 1 {
                label.end();
            }
            gauge.set(calls);
        });
        assert_eq!(gauge.get(), 0);
    }
}
