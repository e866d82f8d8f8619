//! Budget for retries: a bound on the extra load that the callers of one dependency may cause.
//!
//! Retries help while failures are rare. When a service is down, they keep it down: with three attempts, the service
//! gets three times its load. A budget permits retries in the first case and stops them in the second, and needs no
//! setting for it.
//!
//! # When to use it
//!
//! Always: a [retry](crate::retry) layer without a given budget makes its own. Make a budget by hand where several
//! clients or layers call the same dependency, so that together they keep to it. The [standard stack](crate::stack)
//! shares one budget between its retries and hedges.
//!
//! # How it works
//!
//! ```text
//!   success at the first try  +1 ─┐                   ┌─▶ −10 a retry (−20 after an overload)
//!   success after retries,        ├─▶ [ 0 … capacity ]┤
//!   what they cost       +10 …  ──┘                   └─▶ −20 a hedge
//! ```
//!
//! The budget is a bucket of tokens. A call that succeeds at the first attempt adds 1 token, or 2 while there are fewer
//! than 20, so that a client with few calls recovers from a series of failures. A retry costs 10 tokens, or 20 if it
//! is one for [`Later`](crate::Reattempt::Later), as after an overload that names a time. If the capacity is below 20, a retry that costs 20 takes the whole capacity instead: a
//! client with few calls pays 10. An operation that succeeds in the end gets its tokens back. Successful retries are
//! therefore free, and only unsuccessful ones use up the budget.
//!
//! The bucket starts with enough tokens for its first operation: 20 ×
//! ([`max_attempts`](crate::retry::Config::max_attempts) − 1) tokens for a retry layer, 20 ×
//! [`max_hedges`](crate::hedge::Config::max_hedges) for a hedge. When a layer is built, it raises the initial tokens of
//! its budget to this number, and the greatest number counts. The first operation of a new process can therefore make
//! all attempts, also after overloads. The capacity of the bucket is 10 times the greatest of
//!
//! - a reserve for clients with little traffic: one retry for every three calls of the last minute above 30, from 1 to
//!   10 (10 before the calls are first measured),
//! - 0.2 × the operations in flight,
//! - 0.2 s × the operations per second,
//! - in the first minute, the initial number of retries.
//!
//! In a total outage no call adds tokens, and the load on the service falls to 1.00 times the calls. At 20 % random
//! failures almost every retry is allowed. Above about 35 %, retries cost more tokens than calls add: of the load that
//! retries would add without a budget, the budget permits 84 % at 35 % failures, 60 % at 40 %, 28 % at 50 % and nothing
//! at 100 %. Source: the client-side token bucket of the AWS SDKs (*Fixing retries with token buckets and circuit
//! breakers*, Marc Brooker, 2022); here, successes add the tokens.
//!
//! ## A retry after an overload
//!
//! It costs 20 tokens, because what the service needs then is fewer calls. A service that sheds load does less the more
//! retries it gets, and the dearer they are the less it loses. Goodput in percent of what the service can do, with a single budget
//! and 500 calls a second; and the share of calls that fail in the end where refusals come by chance, whatever the load:
//!
//! | | no retry | 20 tokens | 10 tokens |
//! |---|---|---|---|
//! | 1.2 times the capacity, a refusal costs 5 % of a call: goodput | 98.2 | 97.7 | 97.1 |
//! | twice the capacity: goodput | 94.8 | 94.1 | 93.5 |
//! | twice the capacity, a refusal costs 25 % of a call: goodput | 66.8 | 64.3 | 61.9 |
//! | 5 % of the attempts are refused by chance: errors | 5.4 | 0.4 | 0.4 |
//! | 30 % are refused by chance: errors | 30.2 | 12.8 | 3.2 |
//!
//! In an overload any retry is worse than none, and the dear ones are the least
//! harm; against refusals by chance any retry is better than none. An answer 503 without `Retry-After` may be either, and
//! costs 10. Classify it as [`Later`](crate::Reattempt::Later) if your service sheds with it, and as a plain
//! [`Failure`](crate::Outcome::Failure) what is called an overload and comes by chance.
//!
//! # Promises
//!
//! - In a total outage the load on the service falls to 1.00 times the calls. A process that starts during the outage
//!   adds load for its initial tokens. A process that makes a single call makes all attempts of this call.
//! - An operation that is dropped no longer counts as in flight. It does not get its tokens back.
//! - Calls that race neither lose nor create tokens.
//!
//! # Cost
//!
//! An operation makes two atomic updates of one word. Once in 16 operations it reads the clock, to measure the
//! operations per second.
//!
//! # What clones share
//!
//! Everything. Make one budget for each dependency and give it to every layer and client that calls the dependency;
//! never make one for each request.
//!
//! # Metrics
//!
//! `buttress_budget_tokens{name}` and `buttress_budget_capacity{name}`, gauges, at most every 100 ms. They are the
//! sums over the budgets of one name.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`reserve`](Config::reserve) | 1 to 10 retries, by the calls of the last minute | a client with one call a second can overcome a short fault; the clients of a large fleet, with few calls each, do not all save ten retries for the next outage |
//! | [`share`](Config::share) | 0.2 | the extra load that a healthy service can take |
//! | [`initial`](Config::initial) | enough for the first operation: 4 retries for 3 attempts | a new process makes as many attempts as an old one |
//!
//! # Examples
//!
//! ```
//! use buttress::{Budget, HedgeLayer, RetryLayer};
//!
//! let budget = Budget::new("inventory");
//! let reads = RetryLayer::config("inventory reads").budget(&budget).build()?;
//! let writes = RetryLayer::config("inventory writes").budget(&budget).max_attempts(2).build()?;
//! let hedge = HedgeLayer::config("inventory reads").budget(&budget).build()?;
//! # drop((reads, writes, hedge));
//! assert_eq!(budget.tokens(), 40, "two retries at 20 tokens each");
//! # Ok::<(), buttress::ConfigError>(())
//! ```

mod metrics;

use std::sync::Arc;

use tokio::time::Instant;

use self::metrics::{BudgetMetrics, word};
pub(crate) use crate::algorithm::budget::Gain;
use crate::algorithm::budget::{TOKENS_PER_RETRY, Tokens};
use crate::debug::debug_fields;
use crate::error::{Check, or_panic};
use crate::nanos::nanos_between;
use crate::telemetry::{Published, Series, Shown};
use crate::{ConfigError, Mode};

/// Cost of a retry.
pub(crate) const RETRY: u32 = TOKENS_PER_RETRY;
/// Cost of a retry after the service said that it is overloaded.
pub(crate) const RETRY_AFTER_OVERLOAD: u32 = 2 * TOKENS_PER_RETRY;
/// Cost of a hedge. It is more than that of a retry, because nothing has failed yet.
pub(crate) const HEDGE: u32 = 2 * TOKENS_PER_RETRY;

/// Budget for retries, shared by all clones. See the [module documentation](self).
///
/// Two values are equal if they share one budget.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: Tokens,
    mode: Mode,
    /// `true` if the user has set the initial tokens: layers do not raise them then.
    is_initial_fixed: bool,
    origin: Instant,
    shown: Shown<BudgetMetrics, 2>,
    published: Published,
}

impl Tokens {
    /// Returns the levels of the gauges.
    fn word(&self) -> u64 {
        word(self.tokens(), self.capacity())
    }
}

impl Budget {
    /// Makes a budget with the default settings.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a budget.
    pub fn config(name: impl Into<String>) -> Config {
        Config {
            name: name.into(),
            reserve: None,
            share: 0.2,
            initial: None,
            mode: Mode::Enforce,
        }
    }

    /// Returns the name of the budget.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.shown.series.name()
    }

    /// Returns the number of tokens. A retry costs 10.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.shared.tokens.tokens()
    }

    /// Returns the greatest number of tokens that the budget can hold at present.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.shared.tokens.capacity()
    }

    /// Returns the number of operations that are under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.shared.tokens.in_flight()
    }

    /// Raises the initial tokens to at least this number, unless the user has set them.
    pub(crate) fn raise_initial(&self, tokens: u32) {
        if !self.shared.is_initial_fixed {
            let now = nanos_between(self.shared.origin, Instant::now());
            let shared = &*self.shared;
            shared.tokens.raise_initial(tokens, now);
            shared
                .shown
                .publish(|| shared.tokens.word(), Instant::now());
        }
    }

    /// Tells one budget from another.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Notes that an operation begins. Each operation must [`leave`](Self::leave).
    #[inline]
    pub(crate) fn enter(&self) {
        self.shared.tokens.enter();
    }

    /// Notes that an operation is over, and adds its tokens.
    #[inline]
    pub(crate) fn leave(&self, gain: Gain) {
        if self.shared.tokens.leave(gain) {
            self.sample(Instant::now());
        }
    }

    /// Takes `cost` tokens, or all that the budget can hold if that is less. Returns how many it has taken, or `None`
    /// if there are fewer.
    pub(crate) fn withdraw(&self, cost: u32, now: Instant) -> Option<u32> {
        // A client with few calls may not have been measured for long.
        let nanos = nanos_between(self.shared.origin, now);
        self.shared.tokens.sample(nanos);
        let taken = self.shared.tokens.withdraw(cost);
        self.publish(now, nanos);
        taken
    }

    /// Returns whether retries that the budget does not pay for are made all the same.
    pub(crate) fn only_observes(&self) -> bool {
        self.shared.mode == Mode::Observe
    }

    /// Gives back the tokens of an attempt that was not sent.
    pub(crate) fn give_back(&self, taken: u32) {
        self.shared.tokens.deposit(taken);
    }

    #[cold]
    fn sample(&self, now: Instant) {
        let nanos = nanos_between(self.shared.origin, now);
        self.shared.tokens.sample(nanos);
        self.publish(now, nanos);
    }

    fn publish(&self, now: Instant, nanos: u64) {
        let shared = &*self.shared;
        if shared.published.is_due(nanos) {
            shared.shown.publish(|| shared.tokens.word(), now);
        }
    }
}

debug_fields!(Budget { name(), tokens(), capacity(), in_flight() });

impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// The settings of a [`Budget`]. Made by [`Budget::config`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "call `build` to make the budget"]
pub struct Config {
    name: String,
    /// `None` to derive it from the calls of the last minute.
    reserve: Option<u32>,
    share: f64,
    /// `None` for the number that the layers of the budget need.
    initial: Option<u32>,
    mode: Mode,
}

impl Config {
    /// Sets the number of retries that the budget can always hold, 1 to 10,000. By default one for every three calls of
    /// the last minute above 30, from 1 to 10.
    pub fn reserve(mut self, retries: u32) -> Self {
        self.reserve = Some(retries);
        self
    }

    /// Sets the number of retries that the budget can hold for each operation in flight, and for each operation per
    /// second; above 0 and at most 1. 0.2 by default.
    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets the number of retries at the start, 0 to 20,000. The budget can hold them for a minute, even if they are
    /// more than the reserve.
    ///
    /// The default is enough for the first operation if each retry costs 20 tokens: twice the greatest number of
    /// retries, or of hedges, that a layer of the budget can make for one operation. Layers do not raise a number that
    /// is set here.
    pub fn initial(mut self, retries: u32) -> Self {
        self.initial = Some(retries);
        self
    }

    /// Sets whether the budget refuses retries, or only observes. [`Mode::Enforce`] by default.
    ///
    /// With [`Mode::Observe`], retries that the budget would refuse are made. They are counted in
    /// `buttress_retry_decisions_total` with the decision `budget_observed` and also with `retried`. Hedges keep to the
    /// budget in each mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        let check = Check::new("budget", &self.name)?;
        if let Some(reserve) = self.reserve {
            check.count("reserve", reserve, 10_000, "1 to 10000")?;
        }
        check.share("share", self.share)?;
        let initial = self.initial.unwrap_or(0);
        check.within("initial", &initial, ..=20_000, "0 to 20000")?;
        let tokens = Tokens::new(self.reserve, self.share, initial);
        let shown = Shown::new(Series::of(&self.name, "budget"), tokens.word());
        shown.series.begin([]);
        Ok(Budget {
            shared: Arc::new(Shared {
                tokens,
                mode: self.mode,
                is_initial_fixed: self.initial.is_some(),
                origin: Instant::now(),
                shown,
                published: Published::default(),
            }),
        })
    }
}
