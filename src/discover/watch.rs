//! Endpoints from a list that somebody else keeps.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch::Receiver;
use tower::discover::Change;

use super::source::{Source, unless_it_panics};

/// A source of endpoints that follows the list in a `tokio::sync::watch` channel.
///
/// The list holds pairs of a key and whatever the service is made of: an address, an address and a weight. An endpoint
/// whose key stays and whose address changes is replaced. Of two with one key, the last counts. Lists that are replaced
/// before they are read are left out, so a burst of lists costs no more than one.
///
/// When all senders are gone, the source ends, and the endpoints stay as they are.
///
/// # Examples
///
/// ```
/// use buttress::discover::Watch;
/// use tokio::sync::watch;
///
/// let (list, endpoints) = watch::channel(vec![("search-1", "10.0.0.1:80")]);
/// let source = Watch::new(endpoints, |_key, address| format!("a client for {address}"));
/// // Later, by whoever watches the registry:
/// list.send_replace(vec![("search-1", "10.0.0.1:80"), ("search-2", "10.0.0.2:80")]);
/// # drop(source);
/// ```
pub struct Watch<K, A, M> {
    step: Step<K, A>,
    make: M,
    known: HashMap<K, A>,
    changes: VecDeque<Change<K, A>>,
}

enum Step<K, A> {
    /// There may be a list that was not read.
    Reading(Receiver<Vec<(K, A)>>),
    Waiting(Changed<K, A>),
    Ended,
}

/// Resolves to the receiver when there is a new list, to nothing when there never will be.
type Changed<K, A> = Pin<Box<dyn Future<Output = Option<Receiver<Vec<(K, A)>>>> + Send + Sync>>;

impl<K, A, M, S> Watch<K, A, M>
where
    M: FnMut(&K, &A) -> S,
{
    /// Follows `list`. `make` turns a key and its address into the service of the endpoint. If it panics, the
    /// endpoint stays as it was, or is left out, until the list gives it another address.
    pub fn new(list: Receiver<Vec<(K, A)>>, make: M) -> Self {
        Self {
            step: Step::Reading(list),
            make,
            known: HashMap::new(),
            changes: VecDeque::new(),
        }
    }
}

impl<K, A, M> Watch<K, A, M>
where
    K: Clone + Eq + Hash,
    A: Clone + PartialEq,
{
    fn learn(&mut self, list: &[(K, A)]) {
        let wanted: HashMap<&K, &A> = list.iter().map(|(key, address)| (key, address)).collect();
        let mut seen = HashSet::new();
        // In the order of the list, so that a run repeats.
        for key in list
            .iter()
            .map(|(key, _)| key)
            .filter(|key| seen.insert(*key))
        {
            let address = wanted[key];
            if self.known.get(key) != Some(address) {
                self.known.insert(key.clone(), address.clone());
                self.changes
                    .push_back(Change::Insert(key.clone(), address.clone()));
            }
        }
        self.known.retain(|key, _| {
            let is_kept = wanted.contains_key(key);
            if !is_kept {
                self.changes.push_back(Change::Remove(key.clone()));
            }
            is_kept
        });
    }
}

impl<K, A, M, S> Source for Watch<K, A, M>
where
    K: Clone + Eq + Hash + Send + Sync + Unpin + 'static,
    A: Clone + PartialEq + Send + Sync + Unpin + 'static,
    M: FnMut(&K, &A) -> S + Unpin,
{
    type Key = K;
    type Service = S;
    type Error = Infallible;

    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<K, S>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(change) = this.changes.pop_front() {
                let (key, address) = match change {
                    Change::Insert(key, address) => (key, address),
                    Change::Remove(key) => return Poll::Ready(Some(Ok(Change::Remove(key)))),
                };
                if let Some(service) = unless_it_panics(|| (this.make)(&key, &address)) {
                    return Poll::Ready(Some(Ok(Change::Insert(key, service))));
                }
                continue;
            }
            this.step = match std::mem::replace(&mut this.step, Step::Ended) {
                Step::Reading(mut receiver) => {
                    let list = receiver.borrow_and_update().clone();
                    this.learn(&list);
                    Step::Waiting(Box::pin(async move {
                        receiver.changed().await.ok()?;
                        Some(receiver)
                    }))
                }
                Step::Waiting(mut changed) => match changed.as_mut().poll(cx) {
                    Poll::Ready(Some(receiver)) => Step::Reading(receiver),
                    Poll::Ready(None) => Step::Ended,
                    Poll::Pending => {
                        this.step = Step::Waiting(changed);
                        return Poll::Pending;
                    }
                },
                Step::Ended => return Poll::Ready(None),
            };
        }
    }
}

impl<K: fmt::Debug, A: fmt::Debug, M> fmt::Debug for Watch<K, A, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("known", &self.known)
            .field("is_ended", &matches!(self.step, Step::Ended))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source as _;
    use super::{Change, Pin, Poll, Watch};
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tokio::sync::watch;
    use tokio_test::task;

    type List = Vec<(u8, u8)>;
    type Pair = (u8, u8);
    type Source = Watch<u8, u8, fn(&u8, &u8) -> Pair>;
    /// The key, and what was inserted if it was not removed.
    type Seen = (u8, Option<Pair>);

    /// All changes that there are now, and whether the source has ended.
    fn changes(source: &mut Source) -> (Vec<Seen>, bool) {
        let mut changes = Vec::new();
        loop {
            let mut next = task::spawn(std::future::poll_fn(|cx| {
                Pin::new(&mut *source).poll_change(cx)
            }));
            match next.poll() {
                Poll::Ready(Some(Ok(Change::Insert(key, service)))) => {
                    changes.push((key, Some(service)));
                }
                Poll::Ready(Some(Ok(Change::Remove(key)))) => changes.push((key, None)),
                Poll::Ready(None) => return (changes, true),
                Poll::Pending => return (changes, false),
            }
        }
    }

    fn source(list: List) -> (watch::Sender<List>, Source) {
        let (sender, receiver) = watch::channel(list);
        (
            sender,
            Watch::new(receiver, |key, address| (*key, *address)),
        )
    }

    #[test]
    fn endpoints_follow_the_list_and_those_that_stay_are_not_touched() {
        let (list, mut source) = source(vec![(1, 1), (2, 2)]);
        assert_eq!(
            changes(&mut source).0,
            [(1, Some((1, 1))), (2, Some((2, 2)))]
        );
        list.send_replace(vec![(2, 2), (3, 3)]);
        assert_eq!(changes(&mut source).0, [(3, Some((3, 3))), (1, None)]);
        list.send_replace(vec![(3, 3), (2, 2)]);
        assert_eq!(changes(&mut source).0, []);
    }

    #[test]
    fn an_endpoint_with_another_address_is_replaced_and_of_two_with_one_key_the_last_counts() {
        let (list, mut source) = source(vec![(1, 1), (1, 9), (2, 2)]);
        assert_eq!(
            changes(&mut source).0,
            [(1, Some((1, 9))), (2, Some((2, 2)))]
        );
        list.send_replace(vec![(1, 5), (2, 2)]);
        assert_eq!(changes(&mut source).0, [(1, Some((1, 5)))]);
    }

    #[test]
    fn an_endpoint_that_cannot_be_made_is_left_out_until_its_address_changes() {
        let (list, receiver) = watch::channel(vec![(1, 1), (2, 0), (3, 3)]);
        let make: fn(&u8, &u8) -> Pair = |key, address| {
            if *address == 0 {
                std::panic::resume_unwind(Box::new("no service for this one"));
            }
            (*key, *address)
        };
        let mut source = Watch::new(receiver, make);
        assert_eq!(
            changes(&mut source),
            (vec![(1, Some((1, 1))), (3, Some((3, 3)))], false)
        );
        list.send_replace(vec![(1, 1), (2, 2), (3, 3)]);
        assert_eq!(changes(&mut source).0, [(2, Some((2, 2)))]);
    }

    #[test]
    fn a_list_that_was_replaced_is_left_out() {
        let (list, mut source) = source(vec![]);
        assert_eq!(changes(&mut source).0, []);
        for host in 0..100 {
            list.send_replace(vec![(host, host)]);
        }
        assert_eq!(changes(&mut source).0, [(99, Some((99, 99)))]);
    }

    #[test]
    fn ends_with_the_last_sender_after_the_last_list() {
        let (list, mut source) = source(vec![(1, 1)]);
        assert!(!changes(&mut source).1);
        list.send_replace(vec![(1, 1), (2, 2)]);
        drop(list);
        assert_eq!(changes(&mut source), (vec![(2, Some((2, 2)))], true));
        assert_eq!(changes(&mut source), (vec![], true), "and stays so");
    }

    #[test]
    fn a_new_list_wakes_who_waits_for_one() {
        let (list, mut source) = source(vec![]);
        let mut next = task::spawn(std::future::poll_fn(|cx| {
            Pin::new(&mut source).poll_change(cx)
        }));
        assert!(next.poll().is_pending());
        list.send_replace(vec![(1, 1)]);
        assert!(next.is_woken());
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_one_list_to_the_next(
            lists in prop::collection::vec(prop::collection::vec((0_u8..8, 0_u8..3), 0..10), 1..20),
        ) {
            let (sender, mut source) = source(vec![]);
            let mut pool = BTreeMap::new();
            for list in lists {
                sender.send_replace(list.clone());
                let wanted: BTreeMap<u8, u8> = list.into_iter().collect();
                let floor = wanted.len().min(pool.len());
                for (key, service) in changes(&mut source).0 {
                    match service {
                        Some((made_for, address)) => {
                            prop_assert_eq!(made_for, key);
                            prop_assert_ne!(pool.insert(key, address), Some(address));
                        }
                        None => prop_assert!(pool.remove(&key).is_some()),
                    }
                    prop_assert!(pool.len() >= floor);
                }
                prop_assert_eq!(&pool, &wanted);
            }
        }
    }
}
