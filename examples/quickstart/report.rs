//! Report of the measurements, as a table.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::script::{Health, Phase, Script};
use crate::server::Ledger;
use crate::shop::{Ending, Payments, Records, Sample};

/// The shop works again when this many of [`IN_A_ROW`] orders are placed within [`AS_USUAL`].
const PLACED: usize = 19;
const IN_A_ROW: usize = 20;
const AS_USUAL: Duration = Duration::from_millis(400);

/// Greatest delay of timers: work of 10 to 40 ms must not take twice as long.
const LATE: Duration = Duration::from_millis(15);

/// Measurements at one shop.
#[derive(Debug)]
pub(crate) struct Column {
    /// In the order in which the customers came.
    samples: Vec<Sample>,
    attempts: Vec<Option<f64>>,
    booked_twice: usize,
    repeats: u64,
    /// Requests that `payments` answered 429.
    refused: u64,
    /// Orders that were paid, but not placed.
    paid_for_nothing: usize,
    recovered_after: Option<Duration>,
    too_many_files: usize,
}

impl Column {
    pub(crate) fn new(records: &Records, payments: &Ledger, healed: Duration) -> Self {
        let mut samples = records.samples().clone();
        samples.sort_by_key(|sample| sample.customer.order);
        let placed: HashSet<u64> = samples
            .iter()
            .filter(|sample| sample.ending == Ending::Placed)
            .map(|sample| sample.customer.order)
            .collect();
        let after = samples.partition_point(|sample| sample.customer.comes < healed);
        let recovered = samples[after..].windows(IN_A_ROW).find(|window| {
            let as_usual =
                |sample: &&Sample| sample.ending == Ending::Placed && sample.took <= AS_USUAL;
            as_usual(&&window[0]) && window.iter().filter(as_usual).count() >= PLACED
        });
        let too_many_files = |sample: &&Sample| sample.ending == Ending::TooManyFiles;
        Self {
            too_many_files: samples.iter().filter(too_many_files).count(),
            attempts: records
                .payments
                .iter()
                .map(Payments::attempts_each)
                .collect(),
            booked_twice: payments.booked_twice(),
            repeats: payments.repeats,
            refused: payments.refused,
            paid_for_nothing: payments
                .bookings
                .keys()
                .filter(|&order| !placed.contains(order))
                .count(),
            recovered_after: recovered
                .map(|window| window[0].customer.comes.saturating_sub(healed)),
            samples,
        }
    }

    fn phase(&self, phase: usize) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.phase == phase)
    }

    fn ended(&self, phase: usize, endings: &[Ending]) -> usize {
        self.took(phase, |ending| endings.contains(&ending)).len()
    }

    /// Returns the times of the orders of a phase that ended so.
    fn took(&self, phase: usize, so: impl Fn(Ending) -> bool) -> Vec<Duration> {
        self.phase(phase)
            .filter(|sample| so(sample.ending))
            .map(|sample| sample.took)
            .collect()
    }

    /// Orders of a phase that took longer than usual.
    fn slow(&self, phase: usize) -> usize {
        let is_slow = |sample: &&Sample| sample.took > AS_USUAL;
        self.phase(phase).filter(is_slow).count()
    }

    /// Returns the orders that were placed per second while a phase lasted, and the 99th percentile of
    /// their times. Orders that are placed later, when the trouble is over, do not count.
    fn goodput(&self, phase: &Phase) -> (f64, Duration) {
        let lasts = phase.starts..phase.ends;
        let is_placed = |sample: &&Sample| {
            let at = sample.customer.comes + sample.took;
            sample.ending == Ending::Placed && lasts.contains(&at)
        };
        let placed = self.samples.iter().filter(is_placed);
        let took: Vec<_> = placed.map(|sample| sample.took).collect();
        let per_second = took.len() as f64 / phase.length().as_secs_f64();
        (per_second, quantile(took, 0.99))
    }
}

/// Everything that is printed at the end.
#[derive(Debug)]
pub(crate) struct Report {
    script: Arc<Script>,
    bare: Column,
    protected: Column,
    /// Metrics at the beginning of each phase, and at the end.
    pages: Vec<String>,
    lateness: Duration,
}

impl Report {
    pub(crate) fn new(
        script: Arc<Script>,
        shops: [Column; 2],
        pages: Vec<String>,
        lateness: Duration,
    ) -> Self {
        let [bare, protected] = shops;
        Self {
            script,
            bare,
            protected,
            pages,
            lateness,
        }
    }

    /// Something else kept this machine so busy that the shops cannot be compared.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.lateness > LATE
    }

    /// Complains if the run does not show what it should.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let twice = self.bare.booked_twice + self.protected.booked_twice;
        if twice > 0 {
            return Err(format!("{twice} orders were paid twice"));
        }
        if self.is_disturbed() {
            return Ok(());
        }
        let both = [&self.bare, &self.protected];
        let [bare, protected] =
            both.map(|shop| placed(&self.while_payments(shop, Health::is_partly_faulty)));
        if protected <= bare {
            return Err(format!(
                "while some payments failed, were slow or hung, the bare shop placed {bare} orders and the \
                 protected one only {protected}"
            ));
        }
        let [bare, protected] = both.map(|shop| self.knew_after(shop));
        if protected >= bare {
            return Err(format!(
                "while no payment could be made, a customer knew so after {bare:?} at the bare shop and \
                 after {protected:?} at the protected one"
            ));
        }
        if let Some((phase, _)) = self.script.first(Health::Slow) {
            let [bare, protected] = both.map(|shop| shop.slow(phase));
            if protected > 0 && protected >= bare {
                return Err(format!(
                    "in the slow tail, {bare} orders of the bare shop and {protected} of the protected one \
                     took longer than {AS_USUAL:?}"
                ));
            }
        }
        if let Some((_, phase)) = self.script.first(Health::Overloaded) {
            let capacity = phase.health.capacity();
            let [bare, protected] = both.map(|shop| shop.goodput(phase));
            if protected.0 < 0.5 * capacity || protected.0 <= bare.0 || protected.1 >= bare.1 {
                return Err(format!(
                    "under overload, the protected shop placed {:.0} orders a second of {capacity:.0} that \
                     were possible, 99 % of them within {:?}; the bare one {:.0} within {:?}",
                    protected.0, protected.1, bare.0, bare.1
                ));
            }
        }
        let [bare, protected] = both.map(|shop| shop.refused);
        if protected >= bare {
            return Err(format!(
                "{bare} requests of the bare shop and {protected} of the protected one were answered 429"
            ));
        }
        Ok(())
    }

    /// The median of how long customers waited for an answer while no payment could be made.
    fn knew_after(&self, shop: &Column) -> Duration {
        let gone = self.while_payments(shop, Health::is_gone);
        quantile(gone.iter().map(|sample| sample.took).collect(), 0.5)
    }

    /// The orders that came while `payments` was in such a state.
    fn while_payments<'a>(&self, shop: &'a Column, was: fn(Health) -> bool) -> Vec<&'a Sample> {
        shop.samples
            .iter()
            .filter(|sample| was(self.script.phases[sample.phase].health))
            .collect()
    }

    fn phase_by_phase(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let placed = group("orders placed", 19);
        let answered = group("answer after, p50 / p99", 33);
        writeln!(f, "{:29}{placed}{answered}  attempts/payment", "")?;
        writeln!(
            f,
            "{:<22}{:>7}{:>9}{:>10}{:>17}{:>16}{:>8}{:>11}",
            "payments", "orders", "bare", "protected", "bare", "protected", "bare", "protected"
        )?;
        rule(f)?;
        for (number, phase) in self.script.phases.iter().enumerate() {
            let orders = self.bare.phase(number).count();
            let [bare, protected] = [&self.bare, &self.protected].map(|shop| {
                let took: Vec<_> = shop.phase(number).map(|sample| sample.took).collect();
                let placed = percent(shop.ended(number, &[Ending::Placed]), took.len());
                let attempts =
                    shop.attempts[number].map_or("–".to_owned(), |each| format!("{each:.2}"));
                (placed, quantiles(took), attempts)
            });
            writeln!(
                f,
                "{:<22}{orders:>7}{:>9}{:>10}{:>17}{:>16}{:>8}{:>11}",
                phase.title, bare.0, protected.0, bare.1, protected.1, bare.2, protected.2
            )?;
        }
        writeln!(
            f,
            "answer after: until the order was placed or refused, or the customer left (after {:.1} s)",
            self.script.patience.as_secs_f64()
        )
    }

    fn not_placed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BARE: [(&str, usize, &[Ending]); 4] = [
            ("left", 6, &[Ending::Left]),
            ("503", 6, &[Ending::Answered]),
            ("429", 6, &[Ending::TooMany]),
            ("lost", 6, LOST),
        ];
        const PROTECTED: [(&str, usize, &[Ending]); 8] = [
            ("breaker", 9, &[Ending::BreakerOpen]),
            ("bulkhead", 9, &[Ending::BulkheadFull]),
            ("rate", 5, &[Ending::RateLimited]),
            ("timeout", 9, &[Ending::TimedOut, Ending::DeadlineOver]),
            ("503", 5, &[Ending::Answered]),
            ("429", 5, &[Ending::TooMany]),
            ("lost", 6, LOST),
            ("left", 6, &[Ending::Left]),
        ];
        const LOST: &[Ending] = &[Ending::NoConnection, Ending::TooManyFiles, Ending::Other];

        let bare = group("bare", 24);
        let protected = group("protected", 54);
        writeln!(f, "{:<22}{bare}{protected}", "orders not placed,")?;
        write!(f, "{:<22}", "and who said no")?;
        for (title, width, _) in BARE.iter().chain(&PROTECTED) {
            write!(f, "{title:>width$}")?;
        }
        writeln!(f)?;
        rule(f)?;
        for (number, phase) in self.script.phases.iter().enumerate() {
            write!(f, "{:<22}", phase.title)?;
            for (_, width, endings) in BARE {
                write!(f, "{:>width$}", count(self.bare.ended(number, endings)))?;
            }
            for (_, width, endings) in PROTECTED {
                write!(
                    f,
                    "{:>width$}",
                    count(self.protected.ended(number, endings))
                )?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "left: the customer's patience was over; lost: there was no connection, or it broke"
        )
    }

    fn in_all(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = [&self.bare, &self.protected];
        let faulty = both.map(|shop| {
            let orders = self.while_payments(shop, Health::is_faulty);
            percent(placed(&orders), orders.len())
        });
        let recovered = both.map(|shop| match shop.recovered_after {
            Some(after) => format!("{:.1} s", after.as_secs_f64()),
            None => "not yet".to_owned(),
        });
        let refused = both.map(|shop| shop.refused.to_string());
        let for_nothing = both.map(|shop| shop.paid_for_nothing.to_string());
        let repeats = both.map(|shop| shop.repeats.to_string());
        let twice = both.map(|shop| shop.booked_twice.to_string());

        writeln!(f, "{:<52}{:>12}{:>12}", "in all", "bare", "protected")?;
        rule(f)?;
        for (title, [bare, protected]) in [
            ("orders placed while payments was faulty", faulty),
            ("works again after the outage has ended", recovered),
            ("payments answered 429: more than agreed", refused),
            ("paid, but the customer got no order", for_nothing),
            (
                "payments repeated, but caught by the idempotency key",
                repeats,
            ),
            ("orders paid twice", twice),
        ] {
            writeln!(f, "{title:<52}{bare:>12}{protected:>12}")?;
        }
        let too_many_files = both.map(|shop| shop.too_many_files);
        if too_many_files != [0, 0] {
            let [bare, protected] = too_many_files;
            writeln!(
                f,
                "{bare} bare and {protected} protected orders were lost because this process may not open more\n\
                 files, which is not the fault of either shop: raise the limit (ulimit -n 2048)"
            )?;
        }
        Ok(())
    }

    fn in_a_sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bare, protected] = [&self.bare, &self.protected].map(|shop| {
            let partly = self.while_payments(shop, Health::is_partly_faulty);
            (
                percent(placed(&partly), partly.len()),
                milliseconds(self.knew_after(shop)),
            )
        });
        writeln!(
            f,
            "While some payments failed, were slow or hung, the bare shop placed {} of the orders and\n\
             the protected one {}; while none could be made, a customer knew so after {} ms at the\n\
             bare shop and after {} ms at the protected one (median).",
            bare.0, protected.0, bare.1, protected.1
        )
    }

    fn layer_by_layer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((number, _)) = self.script.first(Health::Slow) {
            self.what_hedging_did(number, f)?;
        }
        if let Some((number, _)) = self.script.first(Health::Crowded) {
            self.what_the_rate_limit_did(number, f)?;
        }
        if let Some((number, phase)) = self.script.first(Health::Overloaded) {
            self.what_the_bulkhead_did(number, phase, f)?;
        }
        Ok(())
    }

    fn what_hedging_did(&self, number: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bare, protected] = [&self.bare, &self.protected].map(|shop| {
            let took = |share| milliseconds(quantile(shop.took(number, |_| true), share));
            (took(0.99), took(1.0))
        });
        let hedges = |result| {
            let result = format!("result=\"{result}\"");
            self.counted(number, "buttress_hedges_total", &[&result])
        };
        let (won, others) = (hedges("won"), hedges("lost") + hedges("failed"));
        let payments = self.counted(number, "buttress_calls_total", &["stage=\"operation\""]);
        writeln!(
            f,
            "hedge       In the slow tail {} payments were sent twice ({} more requests) and {won} times the\n\
             {:12}copy was faster: p99 {} ms, not {} ms; the slowest {} ms, not {} ms.",
            won + others,
            percent(won + others, payments),
            "",
            protected.0,
            bare.0,
            protected.1,
            bare.1
        )
    }

    fn what_the_rate_limit_did(&self, number: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |part: &str, labels: &[&str]| {
            let mut all = vec!["layer=\"rate_limit\""];
            all.extend(labels);
            self.difference(number, &format!("buttress_queue_wait_seconds_{part}"), &all)
        };
        let admitted = wait("count", &["result=\"admitted\""]);
        let waited = wait("sum", &["result=\"admitted\""]) / admitted.max(1.0);
        let [bare, protected] = [&self.bare, &self.protected].map(|shop| {
            let placed = shop.ended(number, &[Ending::Placed]);
            percent(placed, shop.phase(number).count())
        });
        writeln!(
            f,
            "rate limit  In the crowds {admitted} requests waited for their turn, {} ms on average, and {} of the\n\
             {:12}orders were placed; at the bare shop, where none waited, {}.",
            milliseconds(Duration::from_secs_f64(waited)),
            protected,
            "",
            bare
        )
    }

    fn what_the_bulkhead_did(
        &self,
        number: usize,
        phase: &Phase,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let rejected = self.counted(number, "buttress_rejections_total", &["layer=\"bulkhead\""]);
        let knew = self
            .protected
            .took(number, |ending| ending == Ending::BulkheadFull);
        let [bare, protected] = [&self.bare, &self.protected].map(|shop| {
            let (placed, p99) = shop.goodput(phase);
            (format!("{placed:.0}"), milliseconds(p99))
        });
        writeln!(
            f,
            "bulkhead    Under overload, {} of {} workers could do {:.0} payments a second. The protected shop\n\
             {:12}placed {} orders a second (p99 {} ms), the bare one {} (p99 {} ms). The bulkhead\n\
             {:12}turned {rejected} payments away, and these customers knew after {} ms (median).",
            phase.health.workers(),
            Health::Healthy.workers(),
            phase.health.capacity(),
            "",
            protected.0,
            protected.1,
            bare.0,
            bare.1,
            "",
            milliseconds(quantile(knew, 0.5)),
        )
    }

    /// Returns the growth of a counter of `payments` in a phase.
    fn counted(&self, phase: usize, metric: &str, labels: &[&str]) -> usize {
        self.difference(phase, metric, labels) as usize
    }

    fn difference(&self, phase: usize, metric: &str, labels: &[&str]) -> f64 {
        let [before, after] = [phase, phase + 1].map(|page| {
            let lines = self.pages.get(page).map_or("", String::as_str).lines();
            let values = lines.filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let found = series.strip_prefix(metric)?.strip_prefix('{')?;
                let is_ours = found.contains("name=\"payments\"");
                let fits = is_ours && labels.iter().all(|label| found.contains(label));
                fits.then(|| value.parse::<f64>().ok())?
            });
            values.sum::<f64>()
        });
        after - before
    }

    /// The page that Prometheus would scrape, without what only a graph can show.
    fn metrics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = |line: &&str| line.starts_with("buttress_");
        let (mut shown, hidden): (Vec<_>, Vec<_>) = self
            .pages
            .last()
            .map_or("", String::as_str)
            .lines()
            .filter(ours)
            .partition(|line| line.contains("name=\"payments\"") && !line.contains("_seconds"));
        shown.sort_unstable();
        for line in shown {
            writeln!(f, "{line}")?;
        }
        let hidden = hidden.len();
        writeln!(f, "… and {hidden} lines about stock and about durations")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.phase_by_phase(f)?;
        writeln!(f)?;
        self.not_placed(f)?;
        writeln!(f)?;
        self.in_all(f)?;
        writeln!(f)?;
        self.in_a_sentence(f)?;
        writeln!(f)?;
        self.layer_by_layer(f)?;
        writeln!(f)?;
        self.metrics(f)
    }
}

/// The title of a group of columns that are so wide together.
fn group(title: &str, width: usize) -> String {
    let title = format!("{title} ");
    format!("  {title:─<0$}", width - 2)
}

fn count(count: usize) -> String {
    match count {
        0 => "·".to_owned(),
        _ => count.to_string(),
    }
}

fn rule(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:─<100}", "")
}

fn placed(samples: &[&Sample]) -> usize {
    samples
        .iter()
        .filter(|sample| sample.ending == Ending::Placed)
        .count()
}

fn percent(part: usize, whole: usize) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

/// The smallest value that is not below the given share of all; zero if there is none.
pub(crate) fn quantile(mut values: Vec<Duration>, share: f64) -> Duration {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

fn quantiles(took: Vec<Duration>) -> String {
    let p50 = milliseconds(quantile(took.clone(), 0.5));
    let p99 = milliseconds(quantile(took, 0.99));
    format!("{p50} / {p99:>4} ms")
}

fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1}")
    } else {
        format!("{milliseconds:.0}")
    }
}
