//! Report of the measurements: three figures in words, and a table with what the layers did.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::column::{Column, Orders};
use crate::metrics::Snapshot;
use crate::script::{Health, Script};
use crate::shop::Ending;

/// Greatest delay of timers: the shortest work, of 10 ms, must not take twice as long.
const LATE: Duration = Duration::from_millis(10);

/// Everything that is printed at the end.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) script: Arc<Script>,
    pub(crate) bare: Column,
    pub(crate) protected: Column,
    /// Metrics at the beginning of each phase, and at the end.
    pub(crate) metrics_at: Vec<Snapshot>,
    lateness: Duration,
}

impl Report {
    pub(crate) fn new(
        script: Arc<Script>,
        shops: [Column; 2],
        metrics_at: Vec<Snapshot>,
        lateness: Duration,
    ) -> Self {
        let [bare, protected] = shops;
        Self {
            script,
            bare,
            protected,
            metrics_at,
            lateness,
        }
    }

    pub(crate) fn both(&self) -> [&Column; 2] {
        [&self.bare, &self.protected]
    }

    /// Something else kept this machine so busy that the shops cannot be compared.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.lateness > LATE
    }

    /// The median of how long customers waited for an answer while no payment could be made.
    pub(crate) fn knew_after(&self) -> [Duration; 2] {
        let gone = |shop: &Column| shop.orders_while(&self.script, Health::is_gone).took(0.5);
        self.both().map(gone)
    }

    /// The time that one answer in a hundred exceeds.
    pub(crate) fn slowest(&self) -> [Duration; 2] {
        self.both().map(|shop| shop.orders().took(0.99))
    }

    fn in_words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orders = grouped(self.bare.orders().len());
        let nothing = self.both().map(|shop| grouped(shop.paid_for_nothing));
        let knew = self.knew_after().map(milliseconds);
        let slowest = self.slowest().map(milliseconds);
        writeln!(
            f,
            "The same {orders} orders at two shops, one bare, one protected by buttress. At the protected shop\n"
        )?;
        for ([bare, protected], unit, meaning) in [
            (nothing, "", "customers paid and got nothing"),
            (
                knew,
                " ms",
                "passed until a customer knew that nothing could be paid (median)",
            ),
            (
                slowest,
                " ms",
                "was the time that only 1 answer in 100 exceeded",
            ),
        ] {
            let protected = format!("{protected}{unit}");
            writeln!(
                f,
                "{protected:>9} {meaning}; at the bare shop {bare}{unit}."
            )?;
        }
        writeln!(f)
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (title, shops) = ("the payment service is", "bare → protected");
        let (placed, within) = ("orders placed", "99 % know within");
        writeln!(
            f,
            "{title:<22}{placed:>18}{within:>18}   what the layers did"
        )?;
        writeln!(f, "{:<22}{shops:>18}{shops:>18}\n{:─<110}", "", "")?;
        for (number, phase) in self.script.phases.iter().enumerate() {
            let row = Row::new(&self.both().map(|shop| shop.orders_of_phase(number)));
            let [bare, protected] = row.per_mille.map(tenths);
            let placed = format!("{bare} → {protected:>5} %");
            let [bare, protected] = row.within.map(grouped);
            let within = format!("{bare} → {protected:>3} ms");
            let line = format!("{:<22}{placed:>18}{within:>18}   ", phase.title);
            let line = line + &self.reason(number, phase, &row);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patience = self.script.patience.as_secs_f64();
        writeln!(
            f,
            "Customers leave after {patience} s. --metrics also prints the metrics."
        )?;
        let repeats = self.protected.repeats;
        match self.both().map(|shop| shop.booked_twice) {
            [0, 0] => writeln!(
                f,
                "Nobody paid twice: the payment service recognised {repeats} repeated payments by their key."
            )?,
            [bare, protected] => writeln!(f, "Paid twice: {bare} → {protected} orders.")?,
        }
        let too_many_files = |shop: &Column| shop.orders().ended(Ending::TooManyFiles);
        let [bare, protected] = self.both().map(too_many_files);
        if bare + protected > 0 {
            writeln!(
                f,
                "{bare} → {protected} orders were lost because this process may not open more files, which is not\n                 the fault of either shop: raise the limit (ulimit -n 2048)."
            )?;
        }
        Ok(())
    }

    /// All metrics at the end, in the way in which Prometheus scrapes them.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        for (series, value) in self.metrics_at.last().into_iter().flatten() {
            let _infallible = writeln!(text, "{series} {value}");
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_disturbed() {
            writeln!(
                f,
                "This machine was too busy: for half a second or longer, one timer in ten was {} ms late.\n\
                 The figures say little.\n",
                milliseconds(self.lateness)
            )?;
        }
        self.in_words(f)?;
        self.table(f)?;
        writeln!(f)?;
        self.notes(f)
    }
}

/// Both shops in one phase, as the table shows them.
pub(crate) struct Row {
    pub(crate) placed: [usize; 2],
    pub(crate) per_mille: [usize; 2],
    pub(crate) within: [u128; 2],
}

impl Row {
    fn new(orders: &[Orders<'_>; 2]) -> Self {
        let per_mille = |orders: &Orders<'_>| {
            (1000.0 * orders.placed() as f64 / orders.len().max(1) as f64).round() as usize
        };
        Self {
            placed: orders.each_ref().map(Orders::placed),
            per_mille: orders.each_ref().map(per_mille),
            within: orders
                .each_ref()
                .map(|orders| orders.took(0.99).as_millis()),
        }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    grouped(duration.as_millis())
}

fn tenths(value: usize) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// Writes a number with commas between groups of three digits.
fn grouped(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Customer, Random};
    use crate::server::Ledger;
    use crate::shop::Sample;

    /// Ten orders in each phase. Some end so, after this time; the others are placed after 50 ms.
    fn column(script: &Script, bad: usize, ending: Ending, took: Duration) -> Column {
        let phases = 0..script.phases.len() * 10;
        let samples = phases.map(|order| {
            let is_bad = order % 10 < bad;
            Sample {
                customer: Customer {
                    order: order as u64,
                    comes: script.phases[order / 10].starts,
                    patience: script.patience,
                },
                phase: order / 10,
                took: if is_bad {
                    took
                } else {
                    Duration::from_millis(50)
                },
                ending: if is_bad { ending } else { Ending::Placed },
            }
        });
        Column::new(samples.collect(), &Ledger::default())
    }

    /// The value of each metric grows by as much in each phase.
    fn metrics(script: &Script, each: &[(&str, f64)]) -> Vec<Snapshot> {
        let at = |phase| {
            let series = each.iter().map(|(series, value)| {
                let (name, labels) = series.split_once('{').unwrap();
                (
                    format!("{name}{{name=\"payments\",{labels}"),
                    value * f64::from(phase),
                )
            });
            series.collect()
        };
        (0..=script.phases.len() as u32).map(at).collect()
    }

    fn rows(report: &Report) -> Vec<String> {
        let text = report.to_string();
        let rows = text.lines().skip_while(|line| !line.starts_with('─'));
        rows.skip(1).take(9).map(str::to_owned).collect()
    }

    #[test]
    fn begins_with_three_figures() {
        let script = Arc::new(Script::new(false));
        let left = Duration::from_secs(1);
        let mut bare = column(&script, 6, Ending::Left, left);
        bare.paid_for_nothing = 1_036;
        let protected = column(&script, 6, Ending::BreakerOpen, Duration::from_millis(20));
        let report = Report::new(script, [bare, protected], Vec::new(), Duration::ZERO);
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[2],
            "        0 customers paid and got nothing; at the bare shop 1,036."
        );
        assert!(
            lines[3].starts_with("    20 ms passed until a customer knew"),
            "{text}"
        );
        assert!(lines[3].ends_with("at the bare shop 1,000 ms."), "{text}");
        assert!(lines[4].starts_with("    50 ms was the time"), "{text}");
        assert!(lines.len() <= 40, "{text}");
        assert!(!text.contains("buttress_"), "{text}");
    }

    #[test]
    fn warning_of_a_busy_machine_comes_first() {
        let script = Arc::new(Script::new(true));
        let shops = || [1, 2].map(|bad| column(&script, bad, Ending::Left, script.patience));
        let at = |lateness| Report::new(Arc::clone(&script), shops(), Vec::new(), lateness);
        let busy = at(LATE + Duration::from_millis(1)).to_string();
        assert!(busy.starts_with("This machine was too busy"), "{busy}");
        assert!(!at(LATE).to_string().contains("busy:"));
        assert!(at(LATE).verdict().is_err());
        assert!(at(LATE + Duration::from_millis(1)).verdict().is_ok());
    }

    #[test]
    fn rows_that_look_worse_have_a_reason() {
        let endings = [
            Ending::Left,
            Ending::Answered,
            Ending::BreakerOpen,
            Ending::NoConnection,
        ];
        let mut random = Random::new(7);
        let mut any = |limit: u64| (random.next() % limit) as usize;
        for _ in 0..500 {
            let script = Arc::new(Script::new(any(2) == 0));
            let mut shop = || {
                let took = Duration::from_millis(45 + any(400) as u64);
                column(&script, any(11), endings[any(4)], took)
            };
            let shops = [shop(), shop()];
            let series = [
                "buttress_retry_decisions_total{decision=\"retried\"}",
                "buttress_timeouts_total{layer=\"timeout\"}",
                "buttress_rejections_total{layer=\"bulkhead\"}",
                "buttress_rejections_total{layer=\"circuit_breaker\"}",
                "buttress_queue_wait_seconds_count{layer=\"rate_limit\",result=\"admitted\"}",
            ];
            let growth = series.map(|series| (series, any(3) as f64));
            let metrics = metrics(&script, &growth);
            let report = Report::new(script, shops, metrics, Duration::ZERO);
            for (number, line) in rows(&report).iter().enumerate() {
                let row = Row::new(&report.both().map(|shop| shop.orders_of_phase(number)));
                let is_worse = row.per_mille[1] < row.per_mille[0] || row.within[1] > row.within[0];
                let (_, reason) = line.split_once(" ms").unwrap();
                assert!(!is_worse || !reason.trim().is_empty(), "{report}");
            }
        }
    }

    #[test]
    fn reasons_are_what_the_layers_did() {
        let script = Arc::new(Script::new(false));
        let metrics = metrics(
            &script,
            &[
                ("buttress_retry_decisions_total{decision=\"retried\"}", 92.0),
                ("buttress_hedges_total{result=\"won\"}", 11.0),
                ("buttress_hedges_total{result=\"lost\"}", 3.0),
                (
                    "buttress_queue_wait_seconds_count{layer=\"rate_limit\",result=\"admitted\"}",
                    4.0,
                ),
                (
                    "buttress_queue_wait_seconds_sum{layer=\"rate_limit\",result=\"admitted\"}",
                    0.3,
                ),
            ],
        );
        let bare = column(&script, 0, Ending::Left, Duration::ZERO);
        let protected = column(&script, 2, Ending::Answered, Duration::from_millis(60));
        let report = Report::new(script, [bare, protected], metrics, Duration::ZERO);
        let rows = rows(&report);
        for (row, reason) in [
            (
                0,
                "2 answered 503 in all attempts; 92 sent again after a wait",
            ),
            (
                1,
                "hedge: 14 sent twice, 11 copies were faster; 2 answered 503 in all attempts",
            ),
            (
                2,
                "retry: 92 sent again after a wait; 2 answered 503 in all attempts",
            ),
            (3, "rate limit: 4 waited for 75 ms on average"),
        ] {
            assert!(rows[row].contains(reason), "{report}");
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
