//! What was measured, as a table.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::script::{Health, Script};
use crate::server::Ledger;
use crate::shop::{Ending, Payments, Records, Sample};

/// The shop works again when this many of [`IN_A_ROW`] orders are placed within [`AS_USUAL`].
const PLACED: usize = 19;
const IN_A_ROW: usize = 20;
const AS_USUAL: Duration = Duration::from_millis(500);

/// What was measured at one shop.
#[derive(Debug)]
pub(crate) struct Column {
    /// In the order in which the customers came.
    samples: Vec<Sample>,
    attempts: Vec<Option<f64>>,
    booked_twice: usize,
    repeats: u64,
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
        self.phase(phase)
            .filter(|sample| endings.contains(&sample.ending))
            .count()
    }
}

/// Everything that is printed at the end.
#[derive(Debug)]
pub(crate) struct Report {
    script: Arc<Script>,
    bare: Column,
    protected: Column,
    metrics: String,
}

impl Report {
    pub(crate) fn new(script: Arc<Script>, shops: [Column; 2], metrics: String) -> Self {
        let [bare, protected] = shops;
        Self {
            script,
            bare,
            protected,
            metrics,
        }
    }

    /// Complains if the run does not show what it should.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let twice = self.bare.booked_twice + self.protected.booked_twice;
        if twice > 0 {
            return Err(format!("{twice} orders were paid twice"));
        }
        let [bare, protected] = [&self.bare, &self.protected]
            .map(|shop| placed(&self.while_payments(shop, Health::is_faulty)));
        if protected <= bare {
            return Err(format!(
                "while payments was faulty, the bare shop placed {bare} orders and the protected one \
                 only {protected}"
            ));
        }
        Ok(())
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
        const BARE: [(&str, &[Ending]); 3] = [
            ("left", &[Ending::Left]),
            ("503", &[Ending::Answered]),
            ("lost", LOST),
        ];
        const PROTECTED: [(&str, &[Ending]); 6] = [
            ("breaker", &[Ending::BreakerOpen]),
            ("timeout", &[Ending::TimedOut]),
            ("deadline", &[Ending::DeadlineOver]),
            ("503", &[Ending::Answered]),
            ("lost", LOST),
            ("left", &[Ending::Left]),
        ];
        const LOST: &[Ending] = &[Ending::NoConnection, Ending::TooManyFiles, Ending::Other];

        let bare = group("bare", 24);
        let protected = group("protected", 54);
        writeln!(f, "{:<22}{bare}{protected}", "orders not placed,")?;
        write!(f, "{:<22}", "and who said no")?;
        for (title, _) in BARE {
            write!(f, "{title:>8}")?;
        }
        for (title, _) in PROTECTED {
            write!(f, "{title:>9}")?;
        }
        writeln!(f)?;
        rule(f)?;
        for (number, phase) in self.script.phases.iter().enumerate() {
            write!(f, "{:<22}", phase.title)?;
            for (_, endings) in BARE {
                write!(f, "{:>8}", count(self.bare.ended(number, endings)))?;
            }
            for (_, endings) in PROTECTED {
                write!(f, "{:>9}", count(self.protected.ended(number, endings)))?;
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
        let for_nothing = both.map(|shop| shop.paid_for_nothing.to_string());
        let repeats = both.map(|shop| shop.repeats.to_string());
        let twice = both.map(|shop| shop.booked_twice.to_string());

        writeln!(f, "{:<52}{:>12}{:>12}", "in all", "bare", "protected")?;
        rule(f)?;
        for (title, [bare, protected]) in [
            ("orders placed while payments was faulty", faulty),
            ("works again after the outage has ended", recovered),
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
            let gone = self.while_payments(shop, Health::is_gone);
            let knew = gone.iter().map(|sample| sample.took).collect();
            (
                percent(placed(&partly), partly.len()),
                milliseconds(quantile(knew, 0.5)),
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

    /// The page that Prometheus would scrape, without what only a graph can show.
    fn metrics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = |line: &&str| line.starts_with("buttress_");
        let (mut shown, hidden): (Vec<_>, Vec<_>) = self
            .metrics
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
fn quantile(mut values: Vec<Duration>, share: f64) -> Duration {
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
