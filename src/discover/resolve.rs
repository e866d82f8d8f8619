//! Resolvers, which find the addresses of a host name.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::Target;
use crate::BoxError;

/// Looks up the addresses of a host.
///
/// A closure `|host: String, port| async move { … }` is a resolver.
///
/// # Examples
///
/// A closure whose answer has weights, priorities and times to live, as SRV records do:
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use buttress::discover::{Dns, Target};
///
/// let dns = Dns::config("search.internal", 8080)
///     .resolver(|_host: String, port| async move {
///         let address = SocketAddr::from(([10, 0, 0, 1], port));
///         Ok(vec![Target::new(address).weight(2.0).priority(1).ttl(Duration::from_secs(30))])
///     })
///     .build(|address| format!("a client for {address}"))?;
/// # drop(dns);
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no resolver",
    label = "must be `System` or a closure `|host: String, port: u16| async move {{ Ok(addresses) }}`"
)]
pub trait Resolve {
    /// An address of the answer: a `SocketAddr`, or a [`Target`] with the properties of the endpoint.
    type Address: Into<Target<SocketAddr>>;
    /// The lookup. It is dropped when it takes too long.
    type Future: Future<Output = Result<Vec<Self::Address>, BoxError>>;

    /// Begins to look up the addresses of `host`, with `port` as their port.
    ///
    /// The addresses may be in any order. If an address is repeated, the last one counts.
    fn resolve(&mut self, host: &str, port: u16) -> Self::Future;
}

impl<F, Fut, A> Resolve for F
where
    F: FnMut(String, u16) -> Fut,
    Fut: Future<Output = Result<Vec<A>, BoxError>>,
    A: Into<Target<SocketAddr>>,
{
    type Address = A;
    type Future = Fut;

    fn resolve(&mut self, host: &str, port: u16) -> Fut {
        self(host.to_owned(), port)
    }
}

/// The resolver of the operating system (`getaddrinfo`), on a thread for blocking work.
///
/// A lookup that took too long continues in its thread, because it cannot be stopped. Until it has ended, another
/// lookup fails at once, so that a hanging resolver holds at most one thread.
#[derive(Debug, Default)]
pub struct System {
    busy: Arc<Mutex<()>>,
}

impl System {
    /// Makes the resolver.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A lookup of [`System`].
pub type Lookup = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, BoxError>> + Send + Sync>>;

impl Resolve for System {
    type Address = SocketAddr;
    type Future = Lookup;

    fn resolve(&mut self, host: &str, port: u16) -> Lookup {
        let host = host.to_owned();
        self.begin(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
    }
}

impl System {
    fn begin(
        &self,
        look_up: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Lookup {
        let busy = Arc::clone(&self.busy).try_lock_owned().ok();
        let task = busy.map(|busy| {
            spawn_blocking(move || {
                // Given back also after a panic, and if this lookup is never begun.
                let _busy = busy;
                look_up()
            })
        });
        Box::pin(async move {
            let addresses = task.ok_or("the lookup before has not ended")?.await??;
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn the_operating_system_resolves_addresses_without_asking_anybody() {
        let mut system = System::new();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let v4 = system.resolve("127.0.0.1", 80).await.expect("an address");
        assert_eq!(v4, [address("127.0.0.1:80")]);
        let v6 = system.resolve("::1", 443).await.expect("an address");
        assert_eq!(v6, [address("[::1]:443")]);
        system
            .resolve("not a host name", 80)
            .await
            .expect_err("cannot be one");
        system
            .resolve("127.0.0.1", 80)
            .await
            .expect("after a failure");
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_holds_one_thread_only() {
        let system = System::new();
        let (end, hang) = mpsc::channel::<()>();
        let hanging = system.begin(move || {
            // Until the other end is dropped.
            let _ended = hang.recv();
            Ok(Vec::new())
        });
        system.begin(|| Ok(Vec::new())).await.expect_err("busy");
        drop(end);
        hanging.await.expect("ends in the end");
        system.begin(|| Ok(Vec::new())).await.expect("free again");
    }

    #[tokio::test]
    async fn a_lookup_that_panics_fails() {
        let system = System::new();
        system
            .begin(|| panic!("in the resolver"))
            .await
            .expect_err("a panic");
        system.begin(|| Ok(Vec::new())).await.expect("free again");
    }
}
