//! What a recorder was told.

#![allow(dead_code, reason = "each test file uses a part of this")]

use crate::debugging::{DebugValue, Snapshotter};

/// A series of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) metric: String,
    /// Names and values.
    pub(crate) labels: Vec<(String, String)>,
    /// The sum of a histogram.
    pub(crate) value: f64,
}

impl Row {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|label| label.0 == name)?;
        Some(&label.1)
    }

    /// Says whether a label has this value.
    pub(crate) fn is_of(&self, value: &str) -> bool {
        self.labels.iter().any(|label| label.1 == value)
    }

    /// The metric and the values of its labels, but for the name of the layer.
    pub(crate) fn title(&self) -> String {
        let labels = self.labels.iter().filter(|label| label.0 != "name");
        let values = labels.map(|label| label.1.as_str());
        let words: Vec<_> = [self.metric.as_str()].into_iter().chain(values).collect();
        words.join(" ")
    }
}

/// All series: gauges as they are, the rest since this was last asked.
pub(crate) fn rows(snapshotter: &Snapshotter) -> impl Iterator<Item = Row> + use<> {
    let rows = snapshotter.snapshot().into_iter();
    rows.map(|(key, value)| {
        let (metric, labels) = key.clone().into_parts();
        let labels = labels.into_iter().map(|label| {
            let (name, value) = label.into_parts();
            (name.into_owned(), value.into_owned())
        });
        Row {
            metric: metric.as_str().to_owned(),
            labels: labels.collect(),
            value: match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(level) => level,
                DebugValue::Histogram(values) => values.into_iter().sum(),
            },
        }
    })
}

/// Checks that the recorder shows nothing in flight and nobody waiting.
pub(crate) fn assert_levels_are_zero(snapshotter: &Snapshotter, case: &str) {
    for row in rows(snapshotter) {
        if matches!(
            row.metric.as_str(),
            "buttress_in_flight" | "buttress_queue_depth"
        ) {
            assert!(row.value == 0.0, "{case}: {row:?}");
        }
    }
}
