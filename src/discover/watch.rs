//! Source of endpoints that follows a list.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::watch::Receiver;
use tokio::time::{Sleep, sleep};

use super::Target;
use super::announcer::Announcer;
use super::source::{Change, Pauses, Source};
use crate::debug::debug_fields;

/// A source of endpoints that follows the list in a `tokio::sync::watch` channel.
///
/// The list contains pairs of a key and an address, or of a key and a [`Target`]: an address with its weight, priority,
/// standby and zone. An endpoint whose key stays and whose address changes is replaced. If two pairs have the same key,
/// the last one counts. A list that is replaced before it is read is skipped, so a burst of lists costs no more than one
/// list.
///
/// When all senders are gone, the source ends, and the endpoints stay unchanged. When another runtime takes over, the
/// source reads the list again, and makes all services anew there. If all senders are gone by then, the endpoints are
/// no longer known, and calls fail with [`DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped).
///
/// # Examples
///
/// ```
/// use buttress::discover::{Target, Watch};
/// use tokio::sync::watch;
///
/// let (list, endpoints) = watch::channel(vec![("search-1", "10.0.0.1:80")]);
/// let source = Watch::new(endpoints, |_key, address| format!("a client for {address}"));
/// // Later, in the code that watches the registry:
/// list.send_replace(vec![("search-1", "10.0.0.1:80"), ("search-2", "10.0.0.2:80")]);
/// # drop(source);
///
/// let (list, endpoints) = watch::channel(vec![("search-1", Target::new("10.0.0.1:80").weight(2.0))]);
/// let source = Watch::new(endpoints, |_key, address: &&str| format!("a client for {address}"));
/// # drop((list, source));
/// ```
pub struct Watch<K, T, A, M> {
    list: Receiver<Vec<(K, T)>>,
    lists: Lists<K, T>,
    make: M,
    announcer: Announcer<K, A>,
    /// Time at which the list is read again, because services could not be made.
    retry: Option<Pin<Box<Sleep>>>,
    pauses: Pauses,
}

/// The present list, and each new one.
type Lists<K, T> = Pin<Box<dyn Stream<Item = Vec<(K, T)>> + Send + Sync>>;

impl<K, T, A, M, S> Watch<K, T, A, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Into<Target<A>> + Send + Sync + 'static,
    A: Clone + PartialEq,
    M: FnMut(&K, &A) -> S,
{
    /// Makes a source that follows `list`. `make` turns a key and its address into the service of the endpoint. If
    /// `make` panics, the endpoint stays unchanged, or is left out, and is tried again after 0.1 to 30 s and with each
    /// new list.
    ///
    /// If the list contains [`Target`]s, annotate the type of the closure's address: `|key, address: &SocketAddr|`.
    pub fn new(list: Receiver<Vec<(K, T)>>, make: M) -> Self {
        Self {
            lists: Self::lists(list.clone()),
            list,
            make,
            announcer: Announcer::new(),
            retry: None,
            pauses: Pauses::new(),
        }
    }

    fn lists(mut list: Receiver<Vec<(K, T)>>) -> Lists<K, T> {
        list.mark_changed();
        let lists = stream::unfold(list, |mut list| async {
            list.changed().await.ok()?;
            let newest = list.borrow_and_update().clone();
            Some((newest, list))
        });
        Box::pin(lists.fuse())
    }

    /// Notes the present list.
    fn learn(announcer: &mut Announcer<K, A>, list: &[(K, T)]) {
        let wanted: HashMap<&K, &T> = list.iter().map(|(key, target)| (key, target)).collect();
        let mut seen = HashSet::new();
        // In the order of the list, so that a run repeats.
        for (key, _) in list.iter().filter(|(key, _)| seen.insert(key)) {
            announcer.find(key.clone(), wanted[key].clone().into());
        }
        let gone = announcer.keys().filter(|key| !wanted.contains_key(key));
        for key in gone.cloned().collect::<Vec<K>>() {
            announcer.lose(&key);
        }
    }
}

impl<K, T, A, M, S> Source for Watch<K, T, A, M>
where
    K: Clone + Eq + Hash + Send + Sync + Unpin + 'static,
    T: Clone + Into<Target<A>> + Send + Sync + 'static,
    A: Clone + PartialEq + Unpin,
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
            let change = this.announcer.next(&mut this.make);
            if this.announcer.take_left_out() && this.retry.is_none() {
                this.retry = Some(Box::pin(sleep(this.pauses.next())));
            }
            if let Some(change) = change {
                return Poll::Ready(Some(Ok(change)));
            }
            let retry = this.retry.as_mut().map(|retry| retry.as_mut().poll(cx));
            let list = match (this.lists.as_mut().poll_next(cx), retry) {
                (Poll::Ready(Some(list)), _) => list,
                (_, Some(Poll::Ready(()))) => {
                    this.retry = None;
                    this.list.borrow().clone()
                }
                (_, Some(Poll::Pending)) => return Poll::Pending,
                (Poll::Ready(None), None) => return Poll::Ready(None),
                (Poll::Pending, None) => {
                    this.pauses = Pauses::new();
                    return Poll::Pending;
                }
            };
            Self::learn(&mut this.announcer, &list);
        }
    }

    fn restart(self: Pin<&mut Self>) -> bool {
        let this = self.get_mut();
        this.lists = Self::lists(this.list.clone());
        let list = this.list.borrow().clone();
        let find = |announcer: &mut _| Self::learn(announcer, &list);
        this.announcer.begin_anew(find);
        this.retry = None;
        this.list.has_changed().is_ok()
    }
}

debug_fields!([K: fmt::Debug, T, A: fmt::Debug, M] Watch<K, T, A, M> { announcer });

#[cfg(test)]
mod tests {
    use super::super::source::Source as _;
    use super::{Change, Context, Pin, Poll, Target, Watch};
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::sync::watch;
    use tokio::time::Instant;
    use tokio_test::task;

    use crate::sync::lock;

    type List = Vec<(u8, u8)>;
    type Pair = (u8, u8);
    type Source = Watch<u8, u8, u8, fn(&u8, &u8) -> Pair>;
    /// The key, and the inserted value unless it was removed.
    type Seen = (u8, Option<Pair>);

    /// All changes that there are now, and whether the source has ended.
    fn changes<D>(source: &mut D) -> (Vec<Seen>, bool)
    where
        D: super::Source<Key = u8, Service = Pair, Error = Infallible> + Unpin,
    {
        let mut changes = Vec::new();
        loop {
            let mut next = task::spawn(std::future::poll_fn(|cx| {
                Pin::new(&mut *source).poll_change(cx)
            }));
            match next.poll() {
                Poll::Ready(Some(Ok(Change::Insert(key, service)))) => {
                    changes.push((key, Some(service.address)));
                }
                Poll::Ready(Some(Ok(Change::Update(..)))) => {}
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

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_cannot_be_made_is_left_out_and_tried_again() {
        let (list, receiver) = watch::channel(vec![(1, 1), (2, 2), (3, 3)]);
        let tries = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&tries);
        let make = move |key: &u8, address: &u8| {
            if *key == 2 {
                lock(&log).push(Instant::now());
                if lock(&log).len() < 12 {
                    std::panic::resume_unwind(Box::new("no service for this one"));
                }
            }
            (*key, *address)
        };
        let mut source = Watch::new(receiver, make);
        let start = Instant::now();
        let first = [(1, Some((1, 1))), (3, Some((3, 3)))];
        assert_eq!(changes(&mut source), (first.to_vec(), false));
        list.send_replace(vec![(1, 1), (2, 2)]);
        assert_eq!(
            changes(&mut source).0,
            [(3, None)],
            "and once more for the list"
        );
        let next = poll_fn(|cx| Pin::new(&mut source).poll_change(cx)).await;
        assert!(matches!(next, Some(Ok(Change::Insert(2, _)))), "{next:?}");
        let tries: Vec<_> = lock(&tries)
            .iter()
            .map(|at| (*at - start).as_millis())
            .collect();
        let expected = [
            0, 0, 100, 300, 700, 1_500, 3_100, 6_300, 12_700, 25_500, 51_100, 81_100,
        ];
        for (at, expected) in tries.iter().zip(expected) {
            assert!(at.abs_diff(expected) < 20, "{tries:?}");
        }
        assert_eq!(tries.len(), 12);
    }

    #[test]
    fn properties_are_updated_without_a_new_service() {
        let target = |weight| (1, Target::new(1).weight(weight));
        let (list, receiver) = watch::channel(vec![target(2.0)]);
        let mut source = Watch::new(receiver, |key: &u8, address: &u8| (*key, *address));
        let mut next = || {
            let next = Pin::new(&mut source).poll_change(&mut Context::from_waker(Waker::noop()));
            next.map(|change| change.expect("goes on").expect("never fails"))
        };
        let inserted = Change::Insert(1, Target::new((1, 1)).weight(2.0));
        assert_eq!(next(), Poll::Ready(inserted));
        list.send_replace(vec![target(3.0)]);
        let updated = Change::Update(1, Target::new(()).weight(3.0));
        assert_eq!(next(), Poll::Ready(updated));
        list.send_replace(vec![(1, 1.into())]);
        let replaced = Change::Insert(1, Target::new((1, 1)));
        assert_eq!(next(), Poll::Ready(replaced));
        assert_eq!(next(), Poll::Pending);
    }

    #[test]
    fn it_begins_anew_with_the_newest_list_and_removes_what_is_gone() {
        let (list, mut source) = source(vec![(1, 1), (2, 2)]);
        assert_eq!(changes(&mut source).0.len(), 2);
        list.send_replace(vec![(2, 2)]);
        assert!(Pin::new(&mut source).restart());
        assert_eq!(changes(&mut source).0, [(2, Some((2, 2))), (1, None)]);
        drop(list);
        assert!(!Pin::new(&mut source).restart(), "nobody knows any more");
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
