//! Stacks and balancers of one name for each kind of trouble, with services whose faults are switched on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use buttress::balance::{Ask, Endpoint, HealthCheck, LeastLoaded, OutlierEjection};
use buttress::bulkhead::BulkheadLayer;
use buttress::discover::Watch;
use buttress::{Balance, BoxError, FallbackLayer, Rate, fallback, standard};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// The faults of a service that answers after 20 ms.
#[derive(Default)]
pub(crate) struct Fault {
    /// Milliseconds by which it takes longer.
    pub(crate) delay: AtomicU32,
    /// The calls of ten that fail.
    pub(crate) failing: AtomicU64,
    calls: AtomicU64,
}

impl Fault {
    fn service(
        self: &Arc<Self>,
    ) -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + use<>
    {
        let fault = Arc::clone(self);
        service_fn(move |()| {
            let fault = Arc::clone(&fault);
            async move {
                sleep((20 + fault.delay.load(Ordering::SeqCst)) * MS).await;
                let number = fault.calls.fetch_add(1, Ordering::SeqCst);
                if number % 10 < fault.failing.load(Ordering::SeqCst) {
                    return Err("down".into());
                }
                Ok(())
            }
        })
    }
}

/// Calls of a process, 100 a second for each service.
#[derive(Default)]
pub(crate) struct Traffic(JoinSet<()>);

impl Traffic {
    fn start<S>(&mut self, service: S)
    where
        S: Service<(), Response = (), Error: Send, Future: Send> + Clone + Send + 'static,
    {
        self.0.spawn(async move {
            let mut ticks = interval(10 * MS);
            // After a stall of the machine, calls that were missed must not come as a burst.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut calls = JoinSet::new();
            loop {
                ticks.tick().await;
                calls.spawn(service.clone().oneshot(()));
                while calls.try_join_next().is_some() {}
            }
        });
    }

    /// Calls a stack with all layers, which is always well.
    pub(crate) fn healthy(&mut self) {
        let stack = standard("healthy")
            .concurrency_limit(50)
            .hedge(|hedge| hedge)
            .rate_limit(Rate::per_second(1_000), |limit| limit);
        self.start(stack.build().unwrap().wrap(well()));
    }

    /// Calls a stack with a limit of 50, and returns it.
    pub(crate) fn burst(
        &mut self,
    ) -> impl Service<(), Response = (), Error: Send, Future: Send> + Clone + Send + use<> {
        let stack = standard("burst").concurrency_limit(50).build().unwrap();
        let stack = stack.wrap(well());
        self.start(stack.clone());
        stack
    }

    /// Calls a stack whose service can fail.
    pub(crate) fn outage(&mut self, fault: &Arc<Fault>) {
        let stack = standard("outage").concurrency_limit(500).build().unwrap();
        self.start(stack.wrap(fault.service()));
    }

    /// Calls a stack without a circuit breaker, whose service can be slower than its timeout.
    pub(crate) fn slow(&mut self, fault: &Arc<Fault>) {
        let stack = standard("slow").timeout(200 * MS).unlimited();
        let stack = stack.no_circuit_breaker().build().unwrap();
        self.start(stack.wrap(fault.service()));
    }

    /// Calls a stack whose service can fail so often that the retries are many, but succeed.
    pub(crate) fn flaky(&mut self, fault: &Arc<Fault>) {
        let stack = standard("flaky").unlimited().no_circuit_breaker();
        self.start(stack.build().unwrap().wrap(fault.service()));
    }

    /// Calls a fallback around a service that can fail.
    pub(crate) fn fallback(&mut self, fault: &Arc<Fault>) {
        let layer = FallbackLayer::new("fallback", fallback::value(()));
        let stack = standard("hidden")
            .no_retry()
            .no_circuit_breaker()
            .unlimited();
        self.start(layer.wrap(stack.build().unwrap().wrap(fault.service())));
    }

    /// Calls a bulkhead by as many callers as its limit, each without a pause.
    pub(crate) fn fill_a_limit(&mut self) {
        let bulkhead = BulkheadLayer::new("full", 10).wrap(well());
        for _ in 0..10 {
            let bulkhead = bulkhead.clone();
            self.0.spawn(async move {
                loop {
                    drop(bulkhead.clone().oneshot(()).await);
                }
            });
        }
    }

    /// Calls a balancer over three replicas. The last one has the fault.
    pub(crate) fn replicas(&mut self, name: &str, fault: &Arc<Fault>) {
        let well = Arc::new(Fault::default());
        let endpoints = [("a", &well), ("b", &well), ("c", fault)];
        let ejection = OutlierEjection::new().consecutive_failures(5);
        let balance = Balance::config(name)
            .endpoint_metrics(5)
            // They stay ejected until the end of the test.
            .outlier_ejection(ejection.base_ejection_time(200 * SECOND))
            .choose(LeastLoaded)
            .build(endpoints.map(|(key, fault)| Endpoint::new(key, fault.service())));
        self.start(balance.unwrap());
    }

    /// Calls a balancer whose discovery ends with the sender that it returns.
    pub(crate) fn discovered(&mut self) -> watch::Sender<Vec<(&'static str, u8)>> {
        let (list, endpoints) = watch::channel(vec![("a", 1)]);
        let source = Watch::new(endpoints, |_key, _address: &u8| well());
        let balance = Balance::config("discovered").discover(source).unwrap();
        let check = HealthCheck::new(Ask::new(|| ()));
        self.start(balance.check_health(check).unwrap());
        list
    }
}

fn well() -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync {
    Arc::new(Fault::default()).service()
}
