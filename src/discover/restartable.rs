//! A source that a function makes, also after a panic or on another runtime.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::source::{Change, Source};

/// A source that a function makes, and makes again when it must restart.
///
/// A stream with timers, connections or a task on a runtime ends with that runtime. A balancer in a `static` outlives
/// the runtime that it was made on, and needs a source that can restart: the function is called again when another
/// runtime takes over, and after a panic. Endpoints of the former source stay in use until the new source has announced
/// some. When the new source first has nothing more to announce, the endpoints that it has not announced are removed.
///
/// [`Dns`](super::Dns) and [`Watch`](super::Watch) restart by themselves.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
/// use std::pin::Pin;
/// use std::task::{Context, Poll};
/// use buttress::discover::{Change, Restartable, Source};
///
/// /// A connection to a registry.
/// struct Registry(Option<u16>);
///
/// impl Source for Registry {
///     type Key = u16;
///     type Service = String;
///     type Error = Infallible;
///
///     fn poll_change(
///         mut self: Pin<&mut Self>,
///         _: &mut Context<'_>,
///     ) -> Poll<Option<Result<Change<u16, String>, Infallible>>> {
///         let Some(port) = self.0.take() else { return Poll::Pending };
///         Poll::Ready(Some(Ok(Change::Insert(port, format!("client of port {port}").into()))))
///     }
/// }
///
/// let source = Restartable::new(|| Registry(Some(8080)));
/// # drop(source);
/// ```
pub struct Restartable<F, D: Source> {
    make: F,
    source: Option<Pin<Box<D>>>,
    known: HashSet<D::Key>,
    /// The endpoints of the former source that the new one has not announced. Empty until the new source has announced
    /// one.
    stale: HashSet<D::Key>,
    has_announced: bool,
    has_ended: bool,
}

impl<F, D> Restartable<F, D>
where
    F: FnMut() -> D,
    D: Source,
{
    /// Makes the source with `make` at the first poll, and whenever it must restart.
    pub fn new(make: F) -> Self {
        Self {
            make,
            source: None,
            known: HashSet::new(),
            stale: HashSet::new(),
            has_announced: false,
            has_ended: false,
        }
    }
}

impl<F, D> Source for Restartable<F, D>
where
    F: FnMut() -> D + Unpin,
    D: Source<Key: Clone + Hash + Unpin>,
{
    type Key = D::Key;
    type Service = D::Service;
    type Error = D::Error;

    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<D::Key, D::Service>, D::Error>>> {
        let this = self.get_mut();
        let source = this.source.get_or_insert_with(|| Box::pin((this.make)()));
        let next = if this.has_ended {
            Poll::Ready(None)
        } else {
            source.as_mut().poll_change(cx)
        };
        this.has_ended = matches!(next, Poll::Ready(None));
        match &next {
            Poll::Ready(Some(Ok(Change::Insert(key, _)))) => {
                this.has_announced = true;
                this.stale.remove(key);
                this.known.insert(key.clone());
            }
            Poll::Ready(Some(Ok(Change::Remove(key)))) => {
                this.stale.remove(key);
                this.known.remove(key);
            }
            Poll::Pending | Poll::Ready(None) if this.has_announced => {
                if let Some(key) = this.stale.iter().next().cloned() {
                    this.stale.remove(&key);
                    this.known.remove(&key);
                    return Poll::Ready(Some(Ok(Change::Remove(key))));
                }
            }
            _ => {}
        }
        next
    }

    fn restart(self: Pin<&mut Self>) -> bool {
        let this = self.get_mut();
        this.stale.clone_from(&this.known);
        (this.has_announced, this.has_ended) = (false, false);
        this.source = None;
        true
    }
}

impl<F, D: Source> fmt::Debug for Restartable<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restartable")
            .field("known", &self.known.len())
            .field("is_made", &self.source.is_some())
            .finish_non_exhaustive()
    }
}
