//! Settings of a stack that change while it runs.

use std::sync::Arc;
use std::time::Duration;

use super::config::Values;
use super::layer::StandardParts;
use crate::algorithm::retry;
use crate::chassis::{Numbers, TimeoutMetrics};
use crate::error::Check;
use crate::live::Live;
use crate::nanos::whole_nanos;
use crate::sync::{Mutex, lock};
use crate::telemetry::Series;
use crate::{ConfigError, settings};

/// The numbers of a plan, and the settings that they are made from.
#[derive(Debug)]
pub(crate) struct Adjustable {
    numbers: Live<4>,
    /// The settings of retry that decide how long it waits.
    waits: Option<Arc<Mutex<retry::Settings>>>,
    of_code: Values,
    /// The settings in force. Locked only by changes, so that no two of them mix.
    in_force: Mutex<Values>,
}

impl Adjustable {
    pub(super) fn new(
        of_code: Values,
        in_force: Values,
        waits: Option<Arc<Mutex<retry::Settings>>>,
    ) -> Self {
        let max_attempts = waits.as_ref().map_or(1, |waits| lock(waits).max_attempts);
        Self {
            numbers: Live::new(words(&in_force, max_attempts)),
            waits,
            of_code,
            in_force: Mutex::new(in_force),
        }
    }

    #[inline(always)]
    pub(super) fn numbers(&self) -> Numbers {
        let [deadline, response_timeout, timeout, max_attempts] = self.numbers.get();
        Numbers {
            deadline,
            response_timeout,
            timeout,
            max_attempts: max_attempts as u32,
        }
    }

    /// Checks all settings, then changes all of them.
    pub(super) fn apply(
        &self,
        name: &'static str,
        overlay: &settings::Stack,
        parts: &StandardParts,
    ) -> Result<(), ConfigError> {
        let check = Check::new("standard stack", name)?;
        let mut values = self.of_code.clone();
        values.overlay = overlay.clone();
        values.apply_overlay(check)?;
        values.check_alone(check)?;
        let retry = values.retry.as_ref().map(crate::retry::Config::checked);
        let retry = retry.transpose()?;
        let mut in_force = lock(&self.in_force);
        check_unchanged(check, &in_force, &values)?;
        let breaker = parts.0.as_ref().zip(values.breaker.as_ref());
        let breaker = breaker.map(|(handle, to)| {
            let prepared = handle.prepare(&to.settings)?;
            Ok::<_, ConfigError>((handle, prepared))
        });
        let breaker = breaker.transpose()?;
        let rate_limit = parts.1.0.as_ref().zip(values.rate_limit.as_ref());
        let rate_limit = rate_limit.map(|(handle, to)| {
            let prepared = handle.prepare(&to.settings)?;
            Ok::<_, ConfigError>((handle, prepared))
        });
        let rate_limit = rate_limit.transpose()?;
        let bulkhead = parts.1.1.0.as_ref().zip(values.bulkhead.value());
        let bulkhead = bulkhead.map(|(handle, to)| {
            let prepared = handle.prepare(&to.settings)?;
            Ok::<_, ConfigError>((handle, prepared))
        });
        let bulkhead = bulkhead.transpose()?;
        values.check_together(check)?;
        // Nothing fails from here on.
        if let Some((handle, prepared)) = breaker {
            handle.commit(prepared);
        }
        if let Some((handle, prepared)) = rate_limit {
            handle.commit(prepared);
        }
        if let Some((handle, prepared)) = bulkhead {
            handle.commit(prepared);
        }
        if let Some(timeout) = values.timeout() {
            if let Some(breaker) = &parts.0 {
                breaker.set_attempt_timeout(timeout);
            }
            if let Some(bulkhead) = &parts.1.1.0 {
                bulkhead.set_attempt_timeout(timeout);
            }
        }
        let max_attempts = retry.as_ref().map_or(1, |retry| retry.max_attempts);
        self.numbers.set(words(&values, max_attempts));
        if let (Some(waits), Some(retry)) = (&self.waits, retry) {
            *lock(waits) = retry;
        }
        let times = [
            ("deadline", values.deadline),
            ("response_timeout", values.response_timeout()),
            ("timeout", values.timeout()),
        ];
        *in_force = values;
        drop(in_force);
        for (part, time) in times {
            if let Some(time) = time {
                Series::<TimeoutMetrics>::of_time(name, part, time);
            }
        }
        Ok(())
    }
}

/// Returns an error for a change that cannot be made while the stack runs.
fn check_unchanged(check: Check<'_>, from: &Values, to: &Values) -> Result<(), ConfigError> {
    check.unchanged([
        ("hedge", from.hedge == to.hedge),
        (
            "timeout",
            from.timeout().is_some() == to.timeout().is_some(),
        ),
        (
            "response_timeout",
            from.response_timeout().is_some() == to.response_timeout().is_some(),
        ),
    ])
}

/// Returns the words of [`Numbers`]. A time that is not set is `u64::MAX`.
fn words(values: &Values, max_attempts: u32) -> [u64; 4] {
    let nanos = |time: Option<Duration>| time.map_or(u64::MAX, whole_nanos);
    [
        nanos(values.deadline),
        nanos(values.response_timeout()),
        nanos(values.timeout()),
        u64::from(max_attempts),
    ]
}
