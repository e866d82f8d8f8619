//! Active health checks: probes test all endpoints, also endpoints that get no calls.
//!
//! [`Findings`] is the state of one endpoint, as plain code. [`drive`] is the task that probes all endpoints.
//!
//! | setting | default | reason |
//! |---|---|---|
//! | `interval` | 5 s | a dead endpoint is unhealthy after 10 to 15 s; failed calls show it sooner |
//! | `jitter` | 0.1 | spreads the probes of many clients |
//! | `timeout` | 1 s | an endpoint that takes longer to answer a probe does not work |
//! | `fall` | 3 | a single lost probe may be chance; as in HAProxy and Kubernetes |
//! | `rise` | 2 | as in HAProxy |
//! | `concurrency` | 16 | with 1,000 endpoints, 3 probes are in flight on average, if a probe takes 15 ms |

use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, abortable, select};
use futures::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Mutex, Notify, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service;

use super::background::unless_it_panics_in;
use crate::algorithm::probes::Findings;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::nanos::saturating_add;
use crate::{BoxError, Classify, ConfigError, Error, ErrorsAreFailures, Outcome};

const INTERVAL: Duration = Duration::from_secs(5);
const JITTER: f64 = 0.1;
const TIMEOUT: Duration = Duration::from_secs(1);
const FALL: u32 = 3;
const RISE: u32 = 2;
const CONCURRENCY: u32 = 16;

/// A test whether an endpoint works.
///
/// Write it as an async function of the endpoint's service, or use [`Ask`], which sends a request. After an error or a
/// panic the endpoint has failed the probe. A probe that takes too long is dropped and has failed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no probe for endpoints of type `{S}`",
    label = "must be `Ask::new(|| request)` or a closure `|service| async move {{ Ok(()) }}` whose future is `Send`"
)]
pub trait Probe<S> {
    /// Tests the endpoint with this service, which is a clone of the service for calls.
    fn probe(&self, service: S) -> impl Future<Output = Result<(), BoxError>> + Send;
}

impl<S, F, Fut> Probe<S> for F
where
    F: Fn(S) -> Fut,
    Fut: Future<Output = Result<(), BoxError>> + Send,
{
    fn probe(&self, service: S) -> impl Future<Output = Result<(), BoxError>> + Send {
        self(service)
    }
}

/// A probe that sends a request. It succeeds if the outcome is a success.
#[derive(Clone)]
pub struct Ask<F, K = ErrorsAreFailures> {
    request: F,
    classify: K,
}

impl<F> Ask<F> {
    /// Makes a probe that sends the request which `request` makes. Errors are failures.
    pub fn new(request: F) -> Self {
        Self {
            request,
            classify: ErrorsAreFailures,
        }
    }
}

impl<F, K> Ask<F, K> {
    /// Sets the classifier of the answer. Any outcome except a success means that the endpoint does not work.
    pub fn classify<K2>(self, classify: K2) -> Ask<F, K2> {
        Ask {
            request: self.request,
            classify,
        }
    }
}

debug_fields!([F, K] Ask<F, K> {});

impl<S, F, K, Req> Probe<S> for Ask<F, K>
where
    F: Fn() -> Req + Sync,
    K: Classify<S::Response> + Sync,
    S: Service<Req> + Send,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send,
    Req: Send,
{
    async fn probe(&self, mut service: S) -> Result<(), BoxError> {
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let call = service.call((self.request)());
        let result = call.await.map_err(|error| Error::of_service(error, || ""));
        match self.classify.classify(result.as_ref()) {
            Outcome::Success => Ok(()),
            _ => Err(result.map_or_else(BoxError::from, |_| "not a success".into())),
        }
    }
}

/// Settings of the health checks of endpoints.
#[derive(Clone)]
#[must_use = "a health check is part of the configuration of a balancer"]
pub struct HealthCheck<P> {
    probe: P,
    settings: Settings,
}

#[derive(Clone, Debug, PartialEq)]
struct Settings {
    interval: Duration,
    jitter: f64,
    timeout: Duration,
    fall: u32,
    rise: u32,
    concurrency: u32,
}

impl<P> HealthCheck<P> {
    /// Makes a health check with this probe.
    pub fn new(probe: P) -> Self {
        Self {
            probe,
            settings: Settings {
                interval: INTERVAL,
                jitter: JITTER,
                timeout: TIMEOUT,
                fall: FALL,
                rise: RISE,
                concurrency: CONCURRENCY,
            },
        }
    }

    /// Sets the time from the beginning of one probe of an endpoint to the beginning of the next. 5 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self
    }

    /// Sets the share by which the interval varies at random in either direction; 0 to 0.9. 0.1 by default.
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = share;
        self
    }

    /// Sets the time after which a probe counts as failed. 1 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets the number of failed probes in a row that make an endpoint unhealthy; 1 to 1,000. 3 by default.
    ///
    /// A new endpoint is unhealthy if its first probe fails.
    pub fn fall(mut self, probes: u32) -> Self {
        self.settings.fall = probes;
        self
    }

    /// Sets the number of successful probes in a row that make an endpoint healthy again; 1 to 1,000. 2 by default.
    pub fn rise(mut self, probes: u32) -> Self {
        self.settings.rise = probes;
        self
    }

    /// Sets the number of probes that may be in flight; 1 to 1,000. 16 by default.
    ///
    /// Other probes wait; first probes of new endpoints go before them.
    pub fn concurrency(mut self, probes: u32) -> Self {
        self.settings.concurrency = probes;
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let probes = |field, probes| check.count(field, probes, 1_000, "1 to 1000");
        check.duration("interval", settings.interval)?;
        check.jitter("jitter", settings.jitter)?;
        check.duration("timeout", settings.timeout)?;
        probes("fall", settings.fall)?;
        probes("rise", settings.rise)?;
        probes("concurrency", settings.concurrency)
    }
}

debug_fields!([P] HealthCheck<P> { settings });

/// The endpoints to probe.
pub(super) trait Checked: Send + Sync + 'static {
    type Service: Send + 'static;

    /// Returns the numbers of all endpoints. A number is never reused.
    fn ids(&self) -> Vec<u32>;

    /// Returns a clone of the service of an endpoint, unless the endpoint is gone.
    fn service(&self, id: u32) -> Option<Self::Service>;

    /// Notes that the state of an endpoint has become known or has changed. The endpoint may be gone.
    ///
    /// It does not end an ejection: an endpoint that answers probes may still fail calls.
    fn found(&self, id: u32, is_healthy: bool);
}

/// Probes the endpoints of `pool` at regular intervals, until the pool is gone.
///
/// `changed` is notified when endpoints are added or removed, and when the pool is dropped. The task never holds the
/// pool while it waits.
pub(super) async fn drive<C, P>(
    pool: Weak<C>,
    changed: Arc<Notify>,
    health: Arc<HealthCheck<P>>,
    mut random: SmallRng,
) where
    C: Checked,
    P: Probe<C::Service> + Send + Sync + 'static,
{
    let room = Room::new(health.settings.concurrency);
    let mut checks = FuturesUnordered::new();
    let mut known: HashMap<u32, AbortHandle> = HashMap::new();
    while let Some(present) = pool.upgrade() {
        let ids = present.ids();
        drop(present);
        let mut gone = std::mem::take(&mut known);
        for id in ids {
            let check = gone.remove(&id).unwrap_or_else(|| {
                let (check, handle) = abortable(check(&pool, &health, &room, random.fork(), id));
                checks.push(check);
                handle
            });
            known.insert(id, check);
        }
        for check in gone.into_values() {
            check.abort();
        }
        let checks = async {
            while checks.next().await.is_some() {}
            pending::<()>().await;
        };
        select(pin!(changed.notified()), pin!(checks)).await;
    }
}

/// Probes an endpoint at regular intervals.
async fn check<C, P>(
    pool: &Weak<C>,
    health: &Arc<HealthCheck<P>>,
    room: &Room,
    mut random: SmallRng,
    id: u32,
) where
    C: Checked,
    P: Probe<C::Service> + Send + Sync + 'static,
{
    let settings = &health.settings;
    let mut findings = Findings::Unknown;
    loop {
        let is_new = findings == Findings::Unknown;
        let permit = room.enter(is_new).await;
        let began = Instant::now();
        // A task of its own, which ends with this check. If it blocks its thread, other probes go on.
        let mut task = JoinSet::new();
        task.spawn(ask(Weak::clone(pool), Arc::clone(health), id));
        let works = matches!(task.join_next().await, Some(Ok(true)));
        drop(permit);
        let news = findings.learn(works, settings.fall, settings.rise);
        if let (Some(is_healthy), Some(pool)) = (news, pool.upgrade()) {
            pool.found(id, is_healthy);
        }
        let wait = if is_new {
            // Endpoints whose first probes came together are spread over the interval.
            random.random_range(0.0..=1.0)
        } else {
            1.0 + settings.jitter * random.random_range(-1.0..=1.0)
        };
        sleep_until(saturating_add(began, settings.interval.mul_f64(wait))).await;
    }
}

/// Probes an endpoint once. Returns `true` if it works. A probe that panics has failed.
async fn ask<C: Checked, P: Probe<C::Service>>(
    pool: Weak<C>,
    health: Arc<HealthCheck<P>>,
    id: u32,
) -> bool {
    let probe = async {
        let service = pool.upgrade().and_then(|pool| pool.service(id));
        health.probe.probe(service.ok_or("is gone")?).await
    };
    let probe = timeout(health.settings.timeout, probe);
    matches!(unless_it_panics_in(probe).await, Some(Ok(Ok(()))))
}

/// Limit of the probes in flight.
struct Room {
    probes: Semaphore,
    /// Held by the next probe that is not the first one of its endpoint.
    turn: Mutex<()>,
    /// One reference for each endpoint that waits for its first probe.
    newcomers: Arc<()>,
}

impl Room {
    fn new(concurrency: u32) -> Self {
        Self {
            probes: Semaphore::new(concurrency as usize),
            turn: Mutex::new(()),
            newcomers: Arc::new(()),
        }
    }

    /// Waits for a permit. First probes of new endpoints go first.
    async fn enter(&self, is_new: bool) -> Option<SemaphorePermit<'_>> {
        if is_new {
            let _newcomer = Arc::clone(&self.newcomers);
            return self.probes.acquire().await.ok();
        }
        let _turn = self.turn.lock().await;
        loop {
            let permit = self.probes.acquire().await.ok();
            if Arc::strong_count(&self.newcomers) == 1 {
                return permit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use crate::sync::lock;

    /// Result of a probe of an endpoint.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Server {
        Works,
        Fails,
        Hangs,
        Panics,
    }
    use Server::{Fails, Hangs, Panics, Works};

    #[derive(Clone)]
    struct Client {
        id: u32,
        server: Arc<Mutex<Server>>,
    }

    #[derive(Default)]
    struct Pool {
        clients: Mutex<Vec<Client>>,
        found: Mutex<Vec<(u32, bool)>>,
        changed: Arc<Notify>,
    }

    impl Pool {
        fn add(&self, id: u32, server: Server) -> Arc<Mutex<Server>> {
            let server = Arc::new(Mutex::new(server));
            lock(&self.clients).push(Client {
                id,
                server: Arc::clone(&server),
            });
            self.changed.notify_one();
            server
        }

        fn remove(&self, id: u32) {
            lock(&self.clients).retain(|client| client.id != id);
            self.changed.notify_one();
        }

        fn take_found(&self) -> Vec<(u32, bool)> {
            let mut found = std::mem::take(&mut *lock(&self.found));
            found.sort_unstable();
            found
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            self.changed.notify_one();
        }
    }

    impl Checked for Pool {
        type Service = Client;

        fn ids(&self) -> Vec<u32> {
            lock(&self.clients).iter().map(|client| client.id).collect()
        }

        fn service(&self, id: u32) -> Option<Client> {
            let clients = lock(&self.clients);
            clients.iter().find(|client| client.id == id).cloned()
        }

        fn found(&self, id: u32, is_healthy: bool) {
            lock(&self.found).push((id, is_healthy));
        }
    }

    /// Time and endpoint of each probe, and the greatest number of probes in flight.
    #[derive(Clone, Default)]
    struct Log {
        asked: Arc<Mutex<Vec<(u32, Instant)>>>,
        in_flight: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Log {
        fn asked(&self) -> Vec<u32> {
            let asked = std::mem::take(&mut *lock(&self.asked));
            asked.into_iter().map(|(id, _)| id).collect()
        }
    }

    struct InFlight(Arc<AtomicUsize>);

    impl Drop for InFlight {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Checks the pool with probes of 10 ms.
    fn start(
        pool: &Arc<Pool>,
        log: &Log,
        set: impl FnOnce(HealthCheck<()>) -> HealthCheck<()>,
    ) -> JoinHandle<()> {
        let log = log.clone();
        let probe = move |client: Client| {
            lock(&log.asked).push((client.id, Instant::now()));
            let in_flight = log.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            log.most.fetch_max(in_flight, Ordering::Relaxed);
            let guard = InFlight(Arc::clone(&log.in_flight));
            async move {
                let _guard = guard;
                sleep(Duration::from_millis(10)).await;
                let server = *lock(&client.server);
                match server {
                    Works => Ok(()),
                    Fails => Err(BoxError::from("refused")),
                    Hangs => pending().await,
                    Panics => panic!("in the probe"),
                }
            }
        };
        let health = HealthCheck {
            probe,
            settings: set(HealthCheck::new(())).settings,
        };
        let changed = Arc::clone(&pool.changed);
        tokio::spawn(drive(
            Arc::downgrade(pool),
            changed,
            Arc::new(health),
            SmallRng::seed_from_u64(1),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_hangs_or_panics_is_found_and_found_again_when_it_works() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        let servers = [Works, Fails, Hangs, Panics].map(|server| pool.add(server as u32, server));
        let driver = start(&pool, &log, |health| health);
        sleep(2 * SECOND).await;
        assert_eq!(
            pool.take_found(),
            [(0, true), (1, false), (2, false), (3, false)]
        );
        sleep(60 * SECOND).await;
        assert_eq!(pool.take_found(), []);
        for server in &servers {
            *lock(server) = Works;
        }
        sleep(12 * SECOND).await;
        assert_eq!(pool.take_found(), [(1, true), (2, true), (3, true)]);
        *lock(&servers[0]) = Hangs;
        sleep(10 * SECOND).await;
        assert_eq!(pool.take_found(), [], "it takes three");
        sleep(9 * SECOND).await;
        assert_eq!(pool.take_found(), [(0, false)]);
        assert!(!driver.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn each_endpoint_is_asked_in_each_interval_and_never_together_with_all_others() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        for id in 0..100 {
            pool.add(id, Works);
        }
        start(&pool, &log, |health| health.concurrency(7));
        sleep(3_600 * SECOND).await;
        assert_eq!(log.most.load(Ordering::Relaxed), 7);
        let asked = lock(&log.asked).clone();
        for id in 0..100 {
            let times: Vec<_> = asked
                .iter()
                .filter(|(of, _)| *of == id)
                .map(|(_, at)| *at)
                .collect();
            assert!((700..740).contains(&times.len()), "{}", times.len());
            for pair in times[1..].windows(2) {
                let wait = (pair[1] - pair[0]).as_secs_f64();
                assert!((4.49..5.6).contains(&wait), "{wait}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_that_were_asked_together_are_spread_over_the_interval() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        for id in 0..100 {
            pool.add(id, Works);
        }
        start(&pool, &log, |health| health.concurrency(100));
        sleep(SECOND / 100).await;
        assert_eq!(log.asked().len(), 100);
        for _ in 0..20 {
            sleep(SECOND).await;
            let asked = log.asked().len();
            assert!((8..40).contains(&asked), "{asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_is_asked_at_once_and_before_the_others() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        for id in 0..3 {
            pool.add(id, Hangs);
        }
        start(&pool, &log, |health| {
            health.concurrency(1).interval(2 * SECOND)
        });
        // Three probes of 1 s each do not fit into 2 s, so a probe always waits.
        sleep(10 * SECOND + SECOND / 2).await;
        log.asked();
        pool.add(7, Works);
        sleep(SECOND).await;
        assert_eq!(log.asked()[0], 7);
        assert!(pool.take_found().contains(&(7, true)));
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        start(&pool, &log, |health| health.interval(3_600 * SECOND));
        sleep(SECOND).await;
        pool.add(8, Works);
        sleep(SECOND / 10).await;
        assert_eq!(log.asked(), [8]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_does_not_keep_the_others_from_being_asked() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        for id in 0..40 {
            pool.add(id, if id < 20 { Hangs } else { Works });
        }
        start(&pool, &log, |health| health.concurrency(4));
        sleep(30 * SECOND).await;
        assert_eq!(pool.take_found().len(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_never_wait_let_other_tasks_have_their_turn() {
        let (pool, asked) = (Arc::new(Pool::default()), Arc::new(AtomicUsize::new(0)));
        for id in 0..1_000 {
            pool.add(id, Works);
        }
        let counted = Arc::clone(&asked);
        let health = HealthCheck::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
        let random = SmallRng::seed_from_u64(1);
        let changed = Arc::clone(&pool.changed);
        tokio::spawn(drive(
            Arc::downgrade(&pool),
            changed,
            Arc::new(health),
            random,
        ));
        let mut before = 0;
        while before < 1_000 {
            tokio::task::yield_now().await;
            let now = asked.load(Ordering::Relaxed);
            assert!(now <= before + 100, "{now} after {before}");
            before = now;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_endpoint_is_dropped_with_its_probe() {
        let (pool, log) = (Arc::new(Pool::default()), Log::default());
        let server = pool.add(1, Hangs);
        start(&pool, &log, |health| health.timeout(3_600 * SECOND));
        sleep(SECOND).await;
        assert_eq!(log.in_flight.load(Ordering::Relaxed), 1);
        pool.remove(1);
        sleep(SECOND).await;
        assert_eq!(log.in_flight.load(Ordering::Relaxed), 0);
        assert_eq!(Arc::strong_count(&server), 1, "nothing is left of it");
        // The same server under a new number is another endpoint.
        pool.add(2, Works);
        sleep(SECOND).await;
        assert_eq!(pool.take_found(), [(2, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_pool_and_gives_its_probes_up() {
        for server in [Works, Hangs] {
            let (pool, log) = (Arc::new(Pool::default()), Log::default());
            pool.add(1, server);
            let driver = start(&pool, &log, |health| {
                health.interval(3_600 * SECOND).timeout(3_600 * SECOND)
            });
            sleep(SECOND).await;
            let dropped = Instant::now();
            drop(pool);
            driver.await.expect("ends");
            assert_eq!(Instant::now(), dropped, "at once");
            assert_eq!(log.in_flight.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_a_probe() {
        let service = tower::service_fn(|status: u16| async move {
            if status == 0 {
                Err(BoxError::from("reset"))
            } else {
                Ok(status)
            }
        });
        let is_ok = |result: Result<&u16, &Error>| match result {
            Ok(status) if *status < 300 => Outcome::Success,
            _ => Outcome::Failure,
        };
        for (status, works) in [(200, true), (503, false), (0, false)] {
            let ask = Ask::new(move || status).classify(crate::classify_fn(is_ok));
            assert_eq!(ask.probe(service).await.is_ok(), works, "{status}");
        }
        assert!(
            Ask::new(|| 503_u16).probe(service).await.is_ok(),
            "no error"
        );
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let new = || HealthCheck::new(());
        let refused = [
            (new().interval(Duration::ZERO), "interval"),
            (new().jitter(f64::NAN), "jitter"),
            (new().jitter(-0.1), "jitter"),
            (new().timeout(Duration::MAX), "timeout"),
            (new().fall(0), "fall"),
            (new().rise(1_001), "rise"),
            (new().concurrency(0), "concurrency"),
        ];
        let check = Check::new("balance", "search").unwrap();
        for (health, field) in refused {
            let error = health.check(check).expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
        assert_eq!(new().check(check), Ok(()));
    }
}
