//! Source of endpoints that looks names up by DNS.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::{Instant, Sleep, Timeout, sleep, timeout};

use super::Target;
use super::announcer::Announcer;
use super::resolve::{Resolve, System};
use super::source::{Change, Source, discard, unless_it_panics};
use crate::debug::debug_fields;
use crate::error::Check;
use crate::random::Random;
use crate::{BoxError, ConfigError};

/// Default interval: the time to live of answers in Kubernetes, and the interval of Envoy. The operating system does
/// not report the time to live of an answer.
const INTERVAL: Duration = Duration::from_secs(5);
/// Default jitter, which spreads the lookups of many clients.
const JITTER: f64 = 0.1;
/// Default timeout, which is the default of `resolv.conf`: two tries of 5 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Default time of empty answers: during a rolling restart, a service may have no ready server for this long.
const EMPTY_AFTER: Duration = Duration::from_secs(60);
/// First pause while no address is known and callers wait for one. It doubles up to the interval.
const PAUSE: Duration = Duration::from_millis(100);

/// Shortest wait after an answer, whose time to live may be zero. Name servers count in seconds.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// Error of a resolver that has panicked. The panic must not end the source, because nothing would restart it.
const PANIC: &str = "the resolver has panicked";

/// The settings of a [`Dns`]. Made by [`Dns::config`].
#[derive(Clone)]
#[must_use = "call `build` to make the source"]
pub struct Config<R = System> {
    settings: Settings,
    on_failure: Option<OnFailure>,
    resolver: R,
}

#[derive(Clone, Debug, PartialEq)]
struct Settings {
    host: String,
    port: u16,
    interval: Duration,
    jitter: f64,
    timeout: Duration,
    empty_after: Duration,
    linger: Duration,
    seed: Option<u64>,
}

type OnFailure = Arc<dyn Fn(&BoxError) + Send + Sync>;

impl<R> Config<R> {
    /// Sets the wait after an answer, or a failure, before the source asks again. 5 s by default.
    ///
    /// If the answer has a shorter [time to live](Target::ttl), the source asks again after that time, but not before 1
    /// s has passed. While no address is known, it asks after 100 ms, then after twice as long, up to the interval.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self
    }

    /// Sets the share by which the wait varies at random in either direction; 0 to 0.9. 0.1 by default.
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = share;
        self
    }

    /// Sets the time after which a lookup counts as failed. 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets the time for which answers without an address count as failures. After it, they remove all endpoints. 60 s
    /// by default; with zero, the first such answer does.
    ///
    /// The operating system reports a name without an address as an error, which never removes an endpoint.
    pub fn empty_after(mut self, empty_after: Duration) -> Self {
        self.settings.empty_after = empty_after;
        self
    }

    /// Sets the time for which an address stays after it is missing from the answers. Zero by default: it is removed at
    /// once.
    ///
    /// Set it to many intervals if the name server returns changing subsets of many addresses.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Calls `listener` with each error of the resolver, and with each panic. Answers without an address are no errors.
    ///
    /// The endpoints stay unchanged after an error, so nothing else reports it. A panic of the listener is caught.
    pub fn on_failure(mut self, listener: impl Fn(&BoxError) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(listener));
        self
    }

    /// Sets the seed of the jitter, which then repeats exactly. By default the operating system gives the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Sets the resolver. The default is the resolver of the operating system.
    pub fn resolver<R2: Resolve>(self, resolver: R2) -> Config<R2> {
        Config {
            settings: self.settings,
            on_failure: self.on_failure,
            resolver,
        }
    }

    /// Makes the source. `make` turns an address into the service of its endpoint, once for each address that
    /// appears. If it panics, that address is left out, and tried again with the next answer.
    ///
    /// # Errors
    ///
    /// If the host is empty, the port is 0 or a value is outside its range.
    pub fn build<M, S>(self, make: M) -> Result<Dns<M, R>, ConfigError>
    where
        R: Resolve,
        M: FnMut(SocketAddr) -> S,
    {
        self.check()?;
        Ok(Dns {
            random: Random::new(self.settings.seed).generator(),
            config: self,
            make,
            step: Step::Asking,
            announcer: Announcer::new(),
            seen: BTreeMap::new(),
            empty_since: None,
            pause: PAUSE,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let check = Check::new("dns", &settings.host)?;
        check.within("port", &settings.port, 1.., "1 to 65535")?;
        check.duration("interval", settings.interval)?;
        check.jitter("jitter", settings.jitter)?;
        check.duration("timeout", settings.timeout)
    }
}

debug_fields!([R] Config<R> { settings });

/// A source of endpoints that looks a host name up at intervals.
///
/// The key of an endpoint is its address. During failures and panics of the resolver, the source keeps the last good
/// answer, and never ends by itself. It looks the name up while it is polled; a balancer's driver polls it also without
/// traffic. Dropping the source ends the lookup. When another runtime takes over, the source announces the known
/// addresses again, with new services, and looks the name up again at once.
pub struct Dns<M, R: Resolve = System> {
    config: Config<R>,
    random: SmallRng,
    make: M,
    step: Step<R::Future>,
    announcer: Announcer<SocketAddr, SocketAddr>,
    /// Time of the last answer that had the address, for each address.
    seen: BTreeMap<SocketAddr, Instant>,
    /// Time since which no answer has had an address.
    empty_since: Option<Instant>,
    /// The next pause while nothing is known.
    pause: Duration,
}

/// State of the source.
enum Step<F> {
    Asking,
    Looking(Pin<Box<Timeout<F>>>),
    Waiting(Pin<Box<Sleep>>),
}

impl Dns<fn(SocketAddr)> {
    /// Begins to configure a source with the addresses of `host`, each with this port.
    pub fn config(host: impl Into<String>, port: u16) -> Config {
        Config {
            settings: Settings {
                host: host.into(),
                port,
                interval: INTERVAL,
                jitter: JITTER,
                timeout: TIMEOUT,
                empty_after: EMPTY_AFTER,
                linger: Duration::ZERO,
                seed: None,
            },
            on_failure: None,
            resolver: System::new(),
        }
    }
}

impl<M, R: Resolve> Dns<M, R> {
    /// Notes an answer or a failure, and begins the wait for the next one.
    fn wait_after(&mut self, answer: Result<Vec<R::Address>, BoxError>) -> Step<R::Future> {
        let mut ttl = None;
        match answer {
            Ok(targets) => {
                let targets: Vec<_> = targets.into_iter().map(Into::into).collect();
                ttl = targets.iter().filter_map(|target| target.ttl).min();
                self.find(targets, Instant::now());
            }
            Err(error) => {
                if let Some(listener) = &self.config.on_failure {
                    let _ = unless_it_panics(|| listener(&error));
                }
                discard([error]);
            }
        }
        let wait = if self.seen.is_empty() {
            let pause = self.pause.min(self.config.settings.interval);
            self.pause = pause.saturating_mul(2);
            pause
        } else {
            self.pause = PAUSE;
            let ttl = ttl.map_or(Duration::MAX, |ttl| ttl.max(LEAST_TTL));
            self.config.settings.interval.min(ttl)
        };
        let jitter = self.config.settings.jitter * self.random.random_range(-1.0..=1.0);
        Step::Waiting(Box::pin(sleep(wait.mul_f64(1.0 + jitter))))
    }

    /// Notes the addresses of an answer.
    fn find(&mut self, targets: Vec<Target<SocketAddr>>, now: Instant) {
        let settings = &self.config.settings;
        let is_empty = targets.is_empty();
        if !is_empty {
            self.empty_since = None;
        } else if now - *self.empty_since.get_or_insert(now) < settings.empty_after {
            return;
        }
        let targets = targets.into_iter().map(|target| (target.address, target));
        for (address, target) in targets.collect::<BTreeMap<_, _>>() {
            self.seen.insert(address, now);
            self.announcer.find(address, target);
        }
        let announcer = &mut self.announcer;
        self.seen.retain(|address, seen| {
            let is_kept = !is_empty && (*seen == now || now - *seen < settings.linger);
            if !is_kept {
                announcer.lose(address);
            }
            is_kept
        });
    }
}

impl<M, R, S> Source for Dns<M, R>
where
    M: FnMut(SocketAddr) -> S + Unpin,
    R: Resolve + Unpin,
{
    type Key = SocketAddr;
    type Service = S;
    type Error = Infallible;

    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<SocketAddr, S>, Infallible>>> {
        let this = self.get_mut();
        loop {
            let make = |_: &_, address: &_| (this.make)(*address);
            if let Some(change) = this.announcer.next(make) {
                return Poll::Ready(Some(Ok(change)));
            }
            this.step = match &mut this.step {
                Step::Asking => {
                    let Config {
                        settings, resolver, ..
                    } = &mut this.config;
                    let begin = || resolver.resolve(&settings.host, settings.port);
                    match unless_it_panics(begin) {
                        Some(lookup) => Step::Looking(Box::pin(timeout(settings.timeout, lookup))),
                        None => this.wait_after(Err(PANIC.into())),
                    }
                }
                Step::Looking(lookup) => {
                    let answer = match unless_it_panics(|| lookup.as_mut().poll(cx)) {
                        Some(poll) => ready!(poll).unwrap_or_else(|too_late| Err(too_late.into())),
                        None => Err(PANIC.into()),
                    };
                    this.wait_after(answer)
                }
                Step::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    Step::Asking
                }
            };
        }
    }

    fn restart(self: Pin<&mut Self>) -> bool {
        let this = self.get_mut();
        let seen = &this.seen;
        this.announcer.begin_anew(|announcer| {
            for address in seen.keys() {
                announcer.find_again(address);
            }
        });
        // Its timer belongs to the former runtime.
        discard([std::mem::replace(&mut this.step, Step::Asking)]);
        true
    }
}

debug_fields!([M, R: Resolve] Dns<M, R> { config, announcer });

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::future::{pending, poll_fn};
    use std::panic::resume_unwind;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::sync::lock;

    /// Answer of the resolver.
    #[derive(Clone)]
    enum Answer {
        Found(&'static [u8]),
        Failed,
        Hanging,
        /// Time at which it is asked, or at which it is to answer.
        Panics {
            at_once: bool,
        },
    }
    use Answer::{Failed, Found as Yes, Hanging, Panics};

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    /// A resolver that answers what the test says, and notes when it was asked.
    #[derive(Clone)]
    struct Script {
        answer: Arc<Mutex<Answer>>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Script {
        fn new(answer: Answer) -> Self {
            Self {
                answer: Arc::new(Mutex::new(answer)),
                asked: Arc::default(),
            }
        }

        fn say(&self, answer: Answer) {
            *lock(&self.answer) = answer;
        }

        fn take_asked(&self) -> usize {
            std::mem::take(&mut *lock(&self.asked)).len()
        }

        fn config(&self) -> Config<impl Resolve + Unpin + use<>> {
            let script = self.clone();
            let resolver = move |host: String, port| {
                assert_eq!((host.as_str(), port), ("search", 80));
                lock(&script.asked).push(Instant::now());
                let answer = lock(&script.answer).clone();
                if let Panics { at_once: true } = answer {
                    resume_unwind(Box::new("the resolver panics"));
                }
                async move {
                    match answer {
                        Panics { .. } => resume_unwind(Box::new("the lookup panics")),
                        Yes(hosts) => Ok(hosts.iter().map(|host| address(*host)).collect()),
                        Failed => Err("no name server".into()),
                        Hanging => pending().await,
                    }
                }
            };
            Dns::config("search", 80).jitter(0.0).resolver(resolver)
        }
    }

    /// The last bytes of the addresses that a balancer would have, with the number of their service.
    #[derive(Default)]
    struct Pool {
        members: HashMap<u8, u32>,
        least: usize,
    }

    impl Pool {
        /// Takes in all changes of the next `time`.
        async fn follow<D>(&mut self, dns: &mut D, time: Duration)
        where
            D: Source<Key = SocketAddr, Service = u32, Error = Infallible> + Unpin,
        {
            let end = Instant::now() + time;
            self.least = usize::MAX;
            loop {
                let change = poll_fn(|cx| Pin::new(&mut *dns).poll_change(cx));
                let Ok(change) = tokio::time::timeout_at(end, change).await else {
                    return;
                };
                let last = |address: SocketAddr| match address {
                    SocketAddr::V4(address) => address.ip().octets()[3],
                    SocketAddr::V6(_) => 0,
                };
                match change.expect("never ends").expect("never fails") {
                    Change::Insert(address, service) => {
                        let former = self.members.insert(last(address), service.address);
                        assert_eq!(former, None, "is announced once");
                    }
                    Change::Update(..) => panic!("no properties"),
                    Change::Remove(address) => {
                        let former = self.members.remove(&last(address));
                        assert!(former.is_some(), "was announced");
                    }
                }
                self.least = self.least.min(self.members.len());
            }
        }

        fn hosts(&self) -> Vec<u8> {
            let mut hosts: Vec<_> = self.members.keys().copied().collect();
            hosts.sort_unstable();
            hosts
        }
    }

    /// Numbers the services that it makes.
    fn numbers() -> impl FnMut(SocketAddr) -> u32 + Unpin {
        let mut last = 0;
        move |_| {
            last += 1;
            last
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn endpoints_follow_the_answers_and_those_that_stay_are_not_touched() {
        let script = Script::new(Yes(&[1, 2, 2, 1]));
        let mut dns = script.config().build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        assert_eq!(pool.hosts(), [1, 2]);
        let kept = pool.members[&2];
        script.say(Yes(&[3, 2]));
        pool.follow(&mut dns, 3 * SECOND).await;
        assert_eq!(pool.hosts(), [1, 2], "not yet");
        pool.follow(&mut dns, 2 * SECOND).await;
        assert_eq!(pool.hosts(), [2, 3]);
        assert_eq!(pool.members[&2], kept);
        assert_eq!(script.take_asked(), 2);
        pool.follow(&mut dns, 50 * SECOND).await;
        assert_eq!(script.take_asked(), 10);
        assert_eq!(pool.members.values().max(), Some(&3), "made once each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_is_replaced_is_never_empty() {
        let script = Script::new(Yes(&[1, 2]));
        let mut dns = script.config().build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        script.say(Yes(&[3, 4]));
        pool.follow(&mut dns, 10 * SECOND).await;
        assert_eq!((pool.hosts(), pool.least), (vec![3, 4], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_outlives_a_resolver_that_fails_hangs_or_panics() {
        let failures = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&failures);
        let script = Script::new(Yes(&[1, 2]));
        let config = script.config().on_failure(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let mut dns = config.build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        let panics = [true, false].map(|at_once| Panics { at_once });
        for outage in [Failed, Hanging].into_iter().chain(panics) {
            script.say(outage);
            failures.store(0, Ordering::Relaxed);
            pool.follow(&mut dns, 86_400 * SECOND).await;
            assert_eq!(pool.hosts(), [1, 2]);
            assert!(failures.load(Ordering::Relaxed) > 5_000);
        }
        script.say(Yes(&[2]));
        pool.follow(&mut dns, 15 * SECOND).await;
        assert_eq!(pool.hosts(), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_panics_does_not_end_the_source() {
        let script = Script::new(Failed);
        let config = script
            .config()
            .on_failure(|_| resume_unwind(Box::new("the listener panics")));
        let mut dns = config.build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        script.say(Yes(&[1]));
        pool.follow(&mut dns, 6 * SECOND).await;
        assert_eq!(pool.hosts(), [1]);
    }

    /// A source whose resolver answers so, and notes when it was asked.
    fn answers(
        asked: &Arc<Mutex<Vec<Instant>>>,
        answer: impl Fn(usize) -> Vec<Target<SocketAddr>> + Unpin,
    ) -> Dns<impl FnMut(SocketAddr) -> u32 + Unpin, impl Resolve + Unpin> {
        let asked = Arc::clone(asked);
        let resolver = move |_, _| {
            let mut asked = lock(&asked);
            asked.push(Instant::now());
            std::future::ready(Ok(answer(asked.len() - 1)))
        };
        let config = Dns::config("search", 80).jitter(0.0).resolver(resolver);
        config.build(numbers()).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_time_to_live_of_an_answer_says_when_it_asks_again() {
        let millis = Duration::from_millis;
        for (ttls, expected) in [
            ([None, None], 5_000),
            ([Some(millis(3_000)), None], 3_000),
            ([Some(millis(4_000)), Some(millis(2_000))], 2_000),
            ([Some(millis(60_000)), None], 5_000),
            ([Some(Duration::ZERO), None], 1_000),
        ] {
            let target = |last| {
                move |ttl: Option<Duration>| {
                    let target = Target::new(address(last));
                    ttl.map_or(target.clone(), |ttl| target.ttl(ttl))
                }
            };
            let asked = Arc::default();
            let mut dns = answers(&asked, |_| vec![target(1)(ttls[0]), target(2)(ttls[1])]);
            Pool::default().follow(&mut dns, 20 * SECOND).await;
            for times in lock(&asked).windows(2) {
                let wait = (times[1] - times[0]).as_millis();
                assert!(wait.abs_diff(expected) < 10, "{ttls:?}: {wait}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn properties_are_announced_and_updated_without_a_new_service() {
        let target = || Target::new(address(1)).weight(2.0).zone("a");
        let asked = Arc::default();
        let mut dns = answers(&asked, |call| match call {
            0 | 1 => vec![target()],
            2 => vec![target().weight(3.0)],
            _ => vec![target().weight(3.0), address(2).into()],
        });
        let mut changes = Vec::new();
        for _ in 0..3 {
            let change = poll_fn(|cx| Pin::new(&mut dns).poll_change(cx)).await;
            changes.push(change.expect("never ends").expect("never fails"));
        }
        let properties = target().with(());
        let expected = [
            Change::Insert(address(1), properties.clone().with(1)),
            Change::Update(address(1), properties.weight(3.0)),
            Change::Insert(address(2), Target::new(2)),
        ];
        assert_eq!(changes, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_anew_with_what_it_knows() {
        let script = Script::new(Yes(&[1, 2]));
        let mut dns = script.config().build(numbers()).expect("valid");
        Pool::default().follow(&mut dns, SECOND).await;
        script.say(Hanging);
        assert!(Pin::new(&mut dns).restart());
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        assert_eq!(pool.hosts(), [1, 2]);
        assert_eq!(pool.members[&1], 3, "made anew");
        assert_eq!(script.take_asked(), 2, "asked at once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_no_service_can_be_made_for_is_left_out_and_tried_again() {
        let script = Script::new(Yes(&[1, 2, 3]));
        let mut tries = 0;
        let make = |address| {
            tries += u32::from(address == self::address(2));
            if address == self::address(2) && tries < 3 {
                resume_unwind(Box::new("no service for this one"));
            }
            7
        };
        let mut dns = script.config().build(make).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        assert_eq!(pool.hosts(), [1, 3]);
        pool.follow(&mut dns, 10 * SECOND).await;
        assert_eq!(pool.hosts(), [1, 2, 3], "the third time");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_answer_is_believed_when_it_has_lasted() {
        let script = Script::new(Yes(&[1, 2]));
        let mut dns = script.config().build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        script.say(Yes(&[]));
        pool.follow(&mut dns, 50 * SECOND).await;
        script.say(Yes(&[1, 2]));
        pool.follow(&mut dns, 10 * SECOND).await;
        script.say(Yes(&[]));
        pool.follow(&mut dns, 60 * SECOND).await;
        assert_eq!((pool.hosts(), pool.least), (vec![1, 2], usize::MAX));
        pool.follow(&mut dns, 10 * SECOND).await;
        assert!(pool.hosts().is_empty());
        script.say(Yes(&[1]));
        pool.follow(&mut dns, 6 * SECOND).await;
        assert_eq!(pool.hosts(), [1], "and then it comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_answer_is_asked_for_ever_more_patiently() {
        let script = Script::new(Failed);
        let mut dns = script.config().build(numbers()).expect("valid");
        let mut pool = Pool::default();
        let start = Instant::now();
        pool.follow(&mut dns, 30 * SECOND).await;
        let asked = lock(&script.asked).clone();
        let millis = |at: &Instant| (*at - start).as_millis();
        let millis: Vec<_> = asked.iter().map(millis).collect();
        // The timer rounds up to the next millisecond.
        let expected = [0, 100, 300, 700, 1_500, 3_100, 6_300, 11_300, 16_300];
        for (millis, expected) in millis.iter().zip(expected) {
            assert!(millis.abs_diff(expected) < 10, "{millis} {expected}");
        }
        script.say(Yes(&[1]));
        pool.follow(&mut dns, 6 * SECOND).await;
        assert_eq!(pool.hosts(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_the_name_server_leaves_out_in_turn_can_linger() {
        let script = Script::new(Yes(&[1, 2]));
        let config = script.config().linger(12 * SECOND);
        let mut dns = config.build(numbers()).expect("valid");
        let mut pool = Pool::default();
        pool.follow(&mut dns, SECOND).await;
        for answer in [&[3, 4], &[1, 2], &[3, 4], &[1, 2]] {
            script.say(Yes(answer));
            pool.follow(&mut dns, 5 * SECOND).await;
            assert_eq!(pool.hosts(), [1, 2, 3, 4]);
        }
        pool.follow(&mut dns, 10 * SECOND).await;
        assert_eq!(pool.hosts(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_do_not_ask_together() {
        let script = Script::new(Yes(&[1]));
        let config = script.config().jitter(0.5).seed(7);
        let mut dns = config.build(numbers()).expect("valid");
        Pool::default().follow(&mut dns, 5_000 * SECOND).await;
        let asked = lock(&script.asked).clone();
        let waits: Vec<_> = asked
            .windows(2)
            .map(|at| (at[1] - at[0]).as_secs_f64())
            .collect();
        let (least, most) = waits
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), &wait| {
                (least.min(wait), most.max(wait))
            });
        assert!(
            (2.5..3.0).contains(&least) && (7.0..7.51).contains(&most),
            "{least} {most}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_addresses_are_announced_one_by_one() {
        let all = |_: String, port| async move {
            let hosts = 0..10_000_u32;
            Ok(hosts
                .map(|host| SocketAddr::from((std::net::Ipv4Addr::from(host), port)))
                .collect())
        };
        let mut dns = Dns::config("search", 80)
            .resolver(all)
            .build(|address| address)
            .expect("valid");
        for _ in 0..10_000 {
            let change = poll_fn(|cx| Pin::new(&mut dns).poll_change(cx)).await;
            assert!(
                matches!(change, Some(Ok(Change::Insert(key, service))) if key == service.address)
            );
        }
    }

    #[tokio::test]
    async fn the_operating_system_is_asked_by_default() {
        let mut dns = Dns::config("127.0.0.1", 80).build(|_| ()).expect("valid");
        let change = poll_fn(|cx| Pin::new(&mut dns).poll_change(cx)).await;
        let found = matches!(change, Some(Ok(Change::Insert(key, _))) if key == ([127, 0, 0, 1], 80).into());
        assert!(found, "{change:?}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let new = || Dns::config("search", 80);
        let refused = [
            (Dns::config("", 80), "name"),
            (Dns::config("search", 0), "port"),
            (new().interval(Duration::ZERO), "interval"),
            (new().interval(Duration::MAX), "interval"),
            (new().jitter(f64::NAN), "jitter"),
            (new().jitter(1.0), "jitter"),
            (new().timeout(Duration::ZERO), "timeout"),
        ];
        for (config, field) in refused {
            let error = config.build(|_| ()).expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
        let odd = new().linger(Duration::MAX).empty_after(Duration::MAX);
        assert!(odd.build(|_| ()).is_ok(), "for ever");
    }
}
