//! The queue in which calls wait: for a permit, for tokens, or for an endpoint.
//!
//! The queue stores the waker of each waiting call and never wakes or drops a waker itself, because both run other code
//! under the lock of the queue, and a whole task may be dropped with its last waker. Each operation puts such wakers
//! into [`Wakers`], which are used after the lock is released: see [`locked`](crate::wake::locked).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use std::thread;

/// The place of a call in a queue. A later call has a higher ticket.
pub(crate) type Ticket = u64;

/// Waiting calls in the order in which they joined, each with its cost and a value.
///
/// A ticket without a place belongs to a call that has left, or whose wait another call has ended.
#[derive(Debug)]
pub(crate) struct WaitQueue<T> {
    entries: BTreeMap<Ticket, Entry<T>>,
    next: Ticket,
    /// The cost of all calls together.
    cost: u64,
}

#[derive(Debug)]
struct Entry<T> {
    cost: u32,
    value: T,
    /// `None` until the call is polled, and after a wake-up until it is polled again.
    waker: Option<Waker>,
}

impl<T> WaitQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
            cost: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the cost of all calls together.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Returns the call that has waited longest.
    pub(crate) fn first(&self) -> Option<(Ticket, &T)> {
        let (ticket, entry) = self.entries.first_key_value()?;
        Some((*ticket, &entry.value))
    }

    /// Returns the call that joined last.
    pub(crate) fn last(&self) -> Option<(Ticket, &T)> {
        let (ticket, entry) = self.entries.last_key_value()?;
        Some((*ticket, &entry.value))
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&T> {
        self.entries.get(&ticket).map(|entry| &entry.value)
    }

    /// Returns the cost of the calls that joined before this one. It reads each of them.
    pub(crate) fn cost_ahead(&self, ticket: Ticket) -> u64 {
        let ahead = self.entries.range(..ticket);
        ahead.map(|(_, entry)| u64::from(entry.cost)).sum()
    }

    /// Adds a call behind all others.
    pub(crate) fn join(&mut self, cost: u32, value: T) -> Ticket {
        let ticket = self.next;
        let entry = Entry {
            cost,
            value,
            waker: None,
        };
        self.next += 1;
        self.cost += u64::from(cost);
        self.entries.insert(ticket, entry);
        ticket
    }

    /// Polls a call and stores `waker`. Returns the value of the call, or `None` if it does not wait.
    pub(crate) fn poll(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
        wakers: &mut Wakers,
    ) -> Option<&mut T> {
        let entry = self.entries.get_mut(&ticket)?;
        let known = entry.waker.as_ref();
        if !known.is_some_and(|known| known.will_wake(waker)) {
            wakers.discard(entry.waker.replace(waker.clone()));
        }
        Some(&mut entry.value)
    }

    /// Removes a call that no longer waits.
    pub(crate) fn leave(&mut self, ticket: Ticket, wakers: &mut Wakers) -> Option<T> {
        let entry = self.remove(ticket)?;
        wakers.discard(entry.waker);
        Some(entry.value)
    }

    /// Removes a call whose wait another one ends, and wakes it.
    pub(crate) fn release(&mut self, ticket: Ticket, wakers: &mut Wakers) {
        wakers.extend(self.remove(ticket).and_then(|entry| entry.waker));
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Entry<T>> {
        let entry = self.entries.remove(&ticket)?;
        self.cost -= u64::from(entry.cost);
        Some(entry)
    }

    /// Removes and wakes the calls for which `stays` returns `false`, in their order. Its arguments are cost and value.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(u32, &T) -> bool, wakers: &mut Wakers) {
        self.entries.retain(|_, entry| {
            let stays = stays(entry.cost, &entry.value);
            if !stays {
                self.cost -= u64::from(entry.cost);
                wakers.extend(entry.waker.take());
            }
            stays
        });
    }

    /// Wakes the first calls, at most `most`. They keep their places.
    pub(crate) fn wake(&mut self, most: usize, wakers: &mut Wakers) {
        let first = self.entries.values_mut().take(most);
        wakers.extend(first.filter_map(|entry| entry.waker.take()));
    }
}

/// Wakers to be woken when no lock is held and the state is consistent again, because they may call back or panic.
#[derive(Debug, Default)]
#[must_use = "the calls wait until they are woken"]
pub(crate) struct Wakers {
    /// Mostly the only one.
    first: Option<Waker>,
    rest: Vec<Waker>,
    /// A waker that is only dropped. One operation replaces or removes at most one waker.
    discarded: Option<Waker>,
}

impl Wakers {
    fn discard(&mut self, waker: Option<Waker>) {
        debug_assert!(self.discarded.is_none());
        self.discarded = waker;
    }

    /// Wakes all of them, also if one panics. The panic continues afterwards.
    pub(crate) fn wake(self) {
        let mut panic = None;
        for waker in self.first.into_iter().chain(self.rest) {
            if let Err(caught) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                panic.get_or_insert(caught);
            }
        }
        if let Some(panic) = panic.filter(|_| !thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

impl Extend<Waker> for Wakers {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        for waker in wakers {
            match &self.first {
                None => self.first = Some(waker),
                Some(_) => self.rest.push(waker),
            }
        }
    }
}

#[cfg(test)]
impl Wakers {
    /// Returns the number of wakers to be woken.
    pub(crate) fn len(&self) -> usize {
        self.first.iter().len() + self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn woken(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker panics");
        }
    }

    #[test]
    fn wakers_are_woken_and_dropped_by_the_caller_only() {
        let mut queue = WaitQueue::new();
        let counts: [Arc<Count>; 2] = Default::default();
        let ticket = queue.join(1, 7);
        for count in [0, 0, 1] {
            let mut wakers = Wakers::default();
            let waker = Arc::clone(&counts[count]).into();
            assert_eq!(queue.poll(ticket, &waker, &mut wakers), Some(&mut 7));
            drop(waker);
            let of_first = Arc::strong_count(&counts[0]);
            assert_eq!(of_first, 2, "in the queue or in the wakers");
            wakers.wake();
        }
        assert_eq!(Arc::strong_count(&counts[0]), 1);
        let mut wakers = Wakers::default();
        assert_eq!(queue.leave(ticket, &mut wakers), Some(7));
        assert_eq!(Arc::strong_count(&counts[1]), 2);
        wakers.wake();
        assert_eq!(counts.map(|count| count.woken()), [0, 0]);
    }

    #[test]
    fn a_waker_that_panics_leaves_no_other_one_unwoken() {
        let count = Arc::new(Count::default());
        let mut wakers = Wakers::default();
        wakers.extend([Arc::new(Panics).into()]);
        wakers.extend([Arc::clone(&count).into(), Arc::clone(&count).into()]);
        let woken = catch_unwind(AssertUnwindSafe(|| wakers.wake()));
        assert!(woken.is_err());
        assert_eq!(count.woken(), 2);
    }

    /// The operations on a queue, with a place among all that have ever been taken.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        Join(u8),
        Poll(usize),
        Leave(usize),
        Release(usize),
        Retain(u8),
        Wake(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => any::<u8>().prop_map(Op::Join),
            4 => any::<usize>().prop_map(Op::Poll),
            1 => any::<usize>().prop_map(Op::Leave),
            1 => any::<usize>().prop_map(Op::Release),
            1 => any::<u8>().prop_map(Op::Retain),
            2 => (0..4_usize).prop_map(Op::Wake),
        ]
    }

    /// A call in the plain list of the model.
    struct Call {
        value: u8,
        waits: bool,
        is_polled: bool,
        woken: u32,
        count: Arc<Count>,
    }

    impl Call {
        fn wake(&mut self) {
            self.woken += u32::from(std::mem::take(&mut self.is_polled));
        }
    }

    proptest! {
        #[test]
        fn does_what_a_plain_list_does(ops in proptest::collection::vec(op(), 1..200)) {
            let mut queue = WaitQueue::new();
            let mut calls: Vec<Call> = Vec::new();
            for op in ops {
                let mut wakers = Wakers::default();
                let index = |of: usize, calls: &[Call]| (!calls.is_empty()).then(|| of % calls.len());
                let of = match op {
                    Op::Poll(of) | Op::Leave(of) | Op::Release(of) => index(of, &calls),
                    _ => Some(0),
                };
                let Some(of) = of else { continue };
                let ticket = of as Ticket;
                match op {
                    Op::Join(value) => {
                        prop_assert_eq!(queue.join(u32::from(value), value), calls.len() as Ticket);
                        let count = Arc::default();
                        calls.push(Call { value, waits: true, is_polled: false, woken: 0, count });
                    }
                    Op::Poll(_) => {
                        let waker = Arc::clone(&calls[of].count).into();
                        let value = queue.poll(ticket, &waker, &mut wakers).copied();
                        prop_assert_eq!(value, calls[of].waits.then_some(calls[of].value));
                        calls[of].is_polled = calls[of].waits;
                    }
                    Op::Leave(_) => {
                        let value = queue.leave(ticket, &mut wakers);
                        prop_assert_eq!(value, calls[of].waits.then_some(calls[of].value));
                        (calls[of].waits, calls[of].is_polled) = (false, false);
                    }
                    Op::Release(_) => {
                        queue.release(ticket, &mut wakers);
                        calls[of].wake();
                        calls[of].waits = false;
                    }
                    Op::Retain(limit) => {
                        let asked = RefCell::new(Vec::new());
                        let stays = |cost, value: &u8| {
                            asked.borrow_mut().push(*value);
                            cost < u32::from(limit)
                        };
                        queue.retain(stays, &mut wakers);
                        let waiting = calls.iter_mut().filter(|call| call.waits);
                        let mut in_order = Vec::new();
                        for call in waiting {
                            in_order.push(call.value);
                            if call.value >= limit {
                                call.wake();
                                call.waits = false;
                            }
                        }
                        prop_assert_eq!(asked.into_inner(), in_order);
                    }
                    Op::Wake(most) => {
                        queue.wake(most, &mut wakers);
                        let waiting = calls.iter_mut().filter(|call| call.waits);
                        waiting.take(most).for_each(Call::wake);
                    }
                }
                wakers.wake();
                for call in &calls {
                    prop_assert_eq!(call.count.woken(), call.woken);
                    let wakers = Arc::strong_count(&call.count) - 1;
                    prop_assert_eq!(wakers, usize::from(call.is_polled), "none is kept or lost");
                }
                let waiting: Vec<_> = (0..).zip(&calls).filter(|(_, call)| call.waits).collect();
                let place = |place: Option<&(Ticket, &Call)>| place.map(|(at, call)| (*at, call.value));
                prop_assert_eq!(queue.len(), waiting.len());
                let cost = |(_, call): &(Ticket, &Call)| u64::from(call.value);
                prop_assert_eq!(queue.cost(), waiting.iter().map(cost).sum::<u64>());
                prop_assert_eq!(queue.first().map(|(at, value)| (at, *value)), place(waiting.first()));
                prop_assert_eq!(queue.last().map(|(at, value)| (at, *value)), place(waiting.last()));
                let ahead = waiting.iter().filter(|(at, _)| *at < ticket);
                prop_assert_eq!(queue.cost_ahead(ticket), ahead.map(cost).sum::<u64>());
                let is_place = calls.get(of).filter(|call| call.waits).map(|call| call.value);
                prop_assert_eq!(queue.get(ticket).copied(), is_place);
            }
        }
    }
}
