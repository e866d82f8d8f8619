//! Whether a protective layer acts on its decisions.

/// Whether a protective layer acts on what it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Calls that the layer decides against are rejected.
    #[default]
    Enforce,
    /// The layer decides and counts, and lets every call pass: a way to try settings on real traffic.
    Observe,
}

impl Mode {
    /// The value of the metrics label `mode`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}
