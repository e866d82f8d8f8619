//! What a picture of an experiment shows. `draw.rs` beside `main.rs` draws it.

use std::ops::Range;

/// Lines over one pair of axes.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the bench draws it, the tests do not")]
pub(crate) struct Plot {
    /// The name of the file, without an ending.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// When, or where, something was wrong, and what.
    pub(crate) spans: Vec<(Range<f64>, &'static str)>,
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the bench draws it, the tests do not")]
pub(crate) struct Axis {
    /// With the unit.
    pub(crate) name: &'static str,
    pub(crate) range: Range<f64>,
    pub(crate) scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the bench draws it, the tests do not")]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) mark: Mark,
}

/// How the points of a line are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the bench draws it, the tests do not")]
pub(crate) enum Mark {
    Joined,
    Dots,
}

impl Axis {
    pub(crate) fn linear(name: &'static str, range: Range<f64>) -> Self {
        let scale = Scale::Linear;
        Self { name, range, scale }
    }

    pub(crate) fn log(name: &'static str, range: Range<f64>) -> Self {
        let scale = Scale::Log;
        Self { name, range, scale }
    }
}

impl Line {
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            mark: Mark::Joined,
        }
    }

    /// A value for each second, from 0 on.
    pub(crate) fn seconds(name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        Self::new(name, (0..).map(f64::from).zip(values).collect())
    }

    /// Points that are not joined.
    pub(crate) fn dots(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            mark: Mark::Dots,
            ..Self::new(name, points)
        }
    }
}
