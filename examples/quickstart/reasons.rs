//! The reasons in the last column of the table: the work of the layers, by their metrics.

use std::time::Duration;

use crate::column::Column;
use crate::report::{Report, Row, milliseconds};
use crate::script::{Health, Phase};
use crate::shop::Ending;

/// Two shops that do the same differ by so many milliseconds.
const CHANCE: u128 = 5;

impl Report {
    /// Returns the work of the layers in a phase. It contains a reason wherever the protected shop looks worse.
    pub(crate) fn reason(&self, number: usize, phase: &Phase, row: &Row) -> String {
        let did = self.did(number, phase, row);
        let mut reasons = Vec::from_iter(did.text);
        if row.per_mille[1] < row.per_mille[0] && !did.explains_placed {
            reasons.push(self.most_not_placed(number));
        }
        let later = row.within[1].saturating_sub(row.within[0]);
        if later > 0 && !did.explains_times {
            reasons.push(match later {
                ..=CHANCE => format!("{later} ms by chance"),
                _ => self.most_time(number),
            });
        }
        reasons.join("; ")
    }

    /// Returns the work of the layer that helps in such a phase.
    fn did(&self, number: usize, phase: &Phase, row: &Row) -> Did {
        let counts = self.counts(number);
        let (refused, sent) = (counts.refused_by_breaker, counts.attempts);
        match phase.health {
            Health::Slow if counts.hedged > 0 => Did::text(format!(
                "hedge: {} sent twice, {} copies were faster",
                counts.hedged, counts.hedges_won
            )),
            Health::Flaky | Health::Hanging if counts.retried > 0 => Did {
                explains_times: true,
                ..Did::text(match counts.timed_out {
                    0 => format!("retry: {} sent again after a wait", counts.retried),
                    late => format!(
                        "timeout: {late} given up; retry: {} sent again",
                        counts.retried
                    ),
                })
            },
            Health::Crowded if counts.waited > 0 => Did {
                explains_times: true,
                ..Did::text(format!(
                    "rate limit: {} waited for {} ms on average",
                    counts.waited,
                    milliseconds(counts.average_wait)
                ))
            },
            Health::Overloaded if counts.refused_by_bulkhead > 0 => {
                let placed = |shop: &Column| {
                    let placed = shop.orders_placed_within(phase).len();
                    (placed as f64 / phase.length().as_secs_f64()).round()
                };
                let [bare, protected] = self.both().map(placed);
                let refused = counts.refused_by_bulkhead;
                Did {
                    explains_placed: protected > bare,
                    ..Did::text(format!(
                        "bulkhead: {refused} refused; placed {protected} a second, not {bare}"
                    ))
                }
            }
            Health::Refused | Health::Outage if refused > 0 => {
                let breaker = format!("breaker: {refused} refused, {sent} sent");
                let more = row.placed[0].saturating_sub(row.placed[1]);
                Did {
                    explains_placed: true,
                    ..Did::text(match more {
                        0 => breaker,
                        more => format!("{breaker}; bare: {more} waited it out"),
                    })
                }
            }
            Health::Healthy if refused > 0 => Did {
                explains_placed: true,
                ..Did::text(format!(
                    "breaker: {refused} refused until a probe went well"
                ))
            },
            _ => Did::default(),
        }
    }

    /// Returns the most frequent end of the orders of a phase that the protected shop did not place.
    fn most_not_placed(&self, number: usize) -> String {
        let orders = self.protected.orders_of_phase(number);
        let ends = [
            (Ending::BreakerOpen, "refused by the breaker"),
            (Ending::BulkheadFull, "refused by the bulkhead"),
            (Ending::RateLimited, "refused by the rate limit"),
            (Ending::TimedOut, "given up after the timeout"),
            (Ending::DeadlineOver, "given up at the deadline"),
            (Ending::Answered, "answered 503 in all attempts"),
            (Ending::TooMany, "answered 429"),
            (Ending::Left, "left"),
            (Ending::NoConnection, "lost with their connections"),
            (Ending::TooManyFiles, "lost for want of files"),
            (Ending::Other, "lost"),
        ];
        let counts = ends.map(|(ending, end)| (orders.ended(ending), end));
        let (count, end) = counts.into_iter().max().unwrap_or_default();
        format!("{count} {end}")
    }

    /// Returns the layer that has most likely taken the time of the slowest answers of a phase.
    fn most_time(&self, number: usize) -> String {
        let counts = self.counts(number);
        let causes = [
            (counts.timed_out, "given up after the timeout"),
            (counts.retried, "sent again after a wait"),
            (counts.waited, "waited for the rate limit"),
            (counts.waited_for_bulkhead, "waited for the bulkhead"),
        ];
        let found = causes.into_iter().find(|(count, _)| *count > 0);
        found.map_or_else(
            || "no layer took time: the machine was busy".to_owned(),
            |(count, cause)| format!("{count} {cause}"),
        )
    }

    fn counts(&self, number: usize) -> Counts {
        let count = |metric: &str, labels: &[&str]| self.growth(number, metric, labels) as usize;
        let refused = |layer| count("buttress_rejections_total", &[layer]);
        let waits = |part: &str, layer| {
            let metric = format!("buttress_queue_wait_seconds_{part}");
            self.growth(number, &metric, &[layer, "result=\"admitted\""])
        };
        let hedges = |result| count("buttress_hedges_total", &[result]);
        let [breaker, rate, bulkhead] =
            ["circuit_breaker", "rate_limit", "bulkhead"].map(|layer| format!("layer=\"{layer}\""));
        let waited = waits("count", &rate);
        let hedges_won = hedges("result=\"won\"");
        Counts {
            attempts: count("buttress_calls_total", &["stage=\"attempt\""]),
            retried: count("buttress_retry_decisions_total", &["decision=\"retried\""]),
            timed_out: count("buttress_timeouts_total", &[]),
            hedged: hedges_won + hedges("result=\"lost\"") + hedges("result=\"failed\""),
            hedges_won,
            waited: waited as usize,
            average_wait: Duration::from_secs_f64(waits("sum", &rate) / waited.max(1.0)),
            waited_for_bulkhead: waits("count", &bulkhead) as usize,
            refused_by_breaker: refused(&breaker),
            refused_by_bulkhead: refused(&bulkhead),
        }
    }

    /// Returns the growth of a metric of `payments` in a phase.
    fn growth(&self, phase: usize, metric: &str, labels: &[&str]) -> f64 {
        let [before, after] = [phase, phase + 1].map(|at| {
            let all = self.metrics_at.get(at).into_iter().flatten();
            let fitting = all.filter(|(series, _)| {
                let found = series.strip_prefix(metric);
                let found = found.filter(|found| found.starts_with('{'));
                found.is_some_and(|found| {
                    let is_ours = found.contains("name=\"payments\"");
                    is_ours && labels.iter().all(|label| found.contains(label))
                })
            });
            fitting.map(|(_, value)| value).sum::<f64>()
        });
        (after - before).max(0.0)
    }
}

/// The work of a layer in a phase, and the way in which it makes the protected shop look worse.
#[derive(Default)]
struct Did {
    text: Option<String>,
    explains_placed: bool,
    explains_times: bool,
}

impl Did {
    fn text(text: String) -> Self {
        Self {
            text: Some(text),
            ..Self::default()
        }
    }
}

/// The work of the layers in a phase, by their metrics.
struct Counts {
    attempts: usize,
    retried: usize,
    timed_out: usize,
    hedged: usize,
    hedges_won: usize,
    waited: usize,
    average_wait: Duration,
    waited_for_bulkhead: usize,
    refused_by_breaker: usize,
    refused_by_bulkhead: usize,
}
