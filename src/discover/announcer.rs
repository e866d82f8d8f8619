//! Endpoints that a source has found, and changes that it has not announced yet.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::Target;
use super::source::{Change, unless_it_panics};
use super::target::Difference;

/// Endpoints that a source has found, and the changes that lead to them from the endpoints that were announced.
#[derive(Debug)]
pub(super) struct Announcer<K, A> {
    known: HashMap<K, Known<A>>,
    changes: VecDeque<Change<K, A>>,
    has_left_out: bool,
}

#[derive(Debug)]
struct Known<A> {
    target: Target<A>,
    /// `true` if the endpoint was announced as it is, or will be. Otherwise it is announced anew as soon as it is found
    /// again.
    is_announced: bool,
}

impl<K, A> Announcer<K, A> {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            changes: VecDeque::new(),
            has_left_out: false,
        }
    }
}

impl<K: Clone + Eq + Hash, A: Clone + PartialEq> Announcer<K, A> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.known.keys()
    }

    /// Notes an endpoint that was found.
    pub(super) fn find(&mut self, key: K, target: Target<A>) {
        let former = self.known.get(&key).filter(|known| known.is_announced);
        let difference = former.map(|former| target.difference(&former.target));
        let change = match difference.unwrap_or(Difference::Insert) {
            Difference::None => return,
            Difference::Update => Change::Update(key.clone(), target.clone().with(())),
            Difference::Insert => Change::Insert(key.clone(), target.clone()),
        };
        self.changes.push_back(change);
        let known = Known {
            target,
            is_announced: true,
        };
        self.known.insert(key, known);
    }

    /// Notes that an endpoint is gone.
    pub(super) fn lose(&mut self, key: &K) {
        if let Some((key, _)) = self.known.remove_entry(key) {
            self.changes.push_back(Change::Remove(key));
        }
    }

    /// Notes that a known endpoint was found again.
    pub(super) fn find_again(&mut self, key: &K) {
        if let Some(known) = self.known.get(key) {
            self.find(key.clone(), known.target.clone());
        }
    }

    /// Announces all endpoints that `find` finds again, with new services, and then removes the others.
    pub(super) fn begin_anew(&mut self, find: impl FnOnce(&mut Self)) {
        let pending = std::mem::take(&mut self.changes);
        for known in self.known.values_mut() {
            known.is_announced = false;
        }
        find(self);
        let is_gone = |change: &Change<K, A>| match change {
            Change::Remove(key) => !self.known.contains_key(key),
            _ => false,
        };
        self.changes.extend(pending.into_iter().filter(is_gone));
    }

    /// Returns the next change, with the service that `make` makes of an address. If `make` panics, the endpoint is
    /// left out until it is found again.
    pub(super) fn next<S>(&mut self, mut make: impl FnMut(&K, &A) -> S) -> Option<Change<K, S>> {
        loop {
            return Some(match self.changes.pop_front()? {
                Change::Insert(key, target) => {
                    let (properties, address) = target.split();
                    let Some(service) = unless_it_panics(|| make(&key, &address)) else {
                        self.has_left_out = true;
                        if let Some(known) = self.known.get_mut(&key) {
                            known.is_announced = false;
                        }
                        continue;
                    };
                    Change::Insert(key, properties.with(service))
                }
                Change::Update(key, properties) => Change::Update(key, properties),
                Change::Remove(key) => Change::Remove(key),
            });
        }
    }

    /// Returns whether an endpoint was left out since the last time.
    pub(super) fn take_left_out(&mut self) -> bool {
        std::mem::take(&mut self.has_left_out)
    }
}
