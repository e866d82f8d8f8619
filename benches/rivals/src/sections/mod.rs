//! What is measured, beside what.

mod balance;
pub(crate) mod http;
mod layers;
mod rejections;
mod stacks;
mod two_threads;

pub(crate) mod sizes;

use crate::rivals::{LIMIT, tower};
use crate::row::{Row, Section, row};

/// Two runs agree to a few per cent with so many.
const ROUNDS: usize = 301;

pub(crate) fn all() -> Vec<Section> {
    let mut sections = layers::sections();
    sections.push(balance::section());
    sections.extend(stacks::sections());
    sections.push(rejections::section());
    sections.push(two_threads::section());
    sections
}

/// A call through tower's `TimeoutLayer`.
fn unit() -> Row {
    row("tower", "timeout (the unit)", &tower::timeout(LIMIT))
}
