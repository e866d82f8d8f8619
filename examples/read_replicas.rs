//! Reads are balanced over replicas, and writes go to the primary. A replica and the primary are lost, the other
//! replica is promoted, and the lost servers come back as replicas.
//!
//! `cargo run --example read_replicas`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use Query::{AskForRole, Read, Write};
use Role::{Gone, Primary, Replica};
use buttress::balance::{Ask, Endpoint, Failover, HealthCheck};
use buttress::stack::StandardService;
use buttress::{Balance, BoxError, ByClone, Never, standard};
use tokio::time::sleep;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

#[derive(Clone, Copy, PartialEq)]
enum Query {
    Read,
    Write,
    /// `SELECT pg_is_in_recovery()`
    AskForRole,
}

/// A client of one server, such as a pool of connections. It answers with the name of the server.
type Server = BoxCloneSyncService<Query, &'static str, BoxError>;

/// The recipe: two stacks over the same servers.
#[derive(Clone)]
struct Orders {
    reads: StandardService<Balance<Server>, ByClone>,
    writes: StandardService<Balance<Server>, Never>,
}

impl Orders {
    fn new(servers: &[(&'static str, Server)]) -> Result<Self, BoxError> {
        let interval = Duration::from_secs(1);
        let endpoint = |at: usize| Endpoint::new(servers[at].0, servers[at].1.clone());
        // The primary takes only the reads that the replicas cannot take.
        let reads = [endpoint(0).priority(1), endpoint(1), endpoint(2)];
        let reads = Balance::new("orders_reads", reads)?;
        let reads = reads.check_health(HealthCheck::new(Ask::new(|| Read)).interval(interval))?;
        // A server that is not the primary is unhealthy for writes. Each server is a group, so writes go to one server.
        let writes = [
            endpoint(0),
            endpoint(1).priority(1),
            endpoint(2).priority(2),
        ];
        let at_once = Failover::new()
            .failback_delay(interval)
            .failback_ramp(interval);
        let writes = Balance::config("orders_writes")
            .failover(at_once)
            .build(writes)?;
        let is_primary = HealthCheck::new(Ask::new(|| AskForRole))
            .interval(interval)
            .fall(1);
        let writes = writes.check_health(is_primary)?;
        // No circuit breakers: the balancers avoid servers that fail.
        let reads = standard("orders_reads")
            .concurrency_limit(50)
            .no_circuit_breaker()
            .build()?
            .wrap(reads);
        let writes = standard("orders_writes")
            .replay(Never)
            .concurrency_limit(20)
            .no_circuit_breaker()
            .build()?
            .wrap(writes);
        Ok(Self { reads, writes })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Primary,
    Replica,
    Gone,
}

/// The present roles of the servers.
type Roles = Arc<Mutex<[Role; 3]>>;

fn server(at: usize, name: &'static str, roles: &Roles) -> Server {
    let roles = Arc::clone(roles);
    Server::new(service_fn(move |query| {
        let role = roles.lock().expect("nobody panics with the lock")[at];
        async move {
            sleep(Duration::from_millis(2)).await;
            match (role, query) {
                (Gone, _) => Err("connection refused".into()),
                (Replica, Write | AskForRole) => Err("read-only transaction".into()),
                _ => Ok(name),
            }
        }
    }))
}

/// Makes 100 reads and 100 writes. Returns the names of the servers that answered them.
async fn load(orders: &Orders) -> [Vec<&'static str>; 2] {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        reads.push(orders.reads.send(Read).await.unwrap_or("failed"));
        writes.push(orders.writes.send(Write).await.unwrap_or("failed"));
    }
    [reads, writes]
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    const NAMES: [&str; 3] = ["ant", "bee", "cat"];
    let roles = Roles::new(Mutex::new([Primary, Replica, Replica]));
    let servers = [0, 1, 2].map(|at| (NAMES[at], server(at, NAMES[at], &roles)));
    let orders = Orders::new(&servers)?;

    println!("                   reads: ant bee cat   writes: ant bee cat failed");
    let steps = [
        ("ant is the primary", [Primary, Replica, Replica], 0),
        ("cat is gone", [Primary, Replica, Gone], 0),
        ("ant is gone", [Gone, Replica, Gone], 0),
        ("bee is promoted", [Gone, Primary, Gone], 5),
        ("ant and cat are replicas", [Replica, Primary, Replica], 60),
    ];
    for (event, now, after) in steps {
        *roles.lock().expect("nobody panics with the lock") = now;
        sleep(Duration::from_secs(after)).await;
        let answers = load(&orders).await;
        let count = |of: usize, name| answers[of].iter().filter(|answer| **answer == name).count();
        let [reads, writes] = [0, 1].map(|of| NAMES.map(|name| count(of, name)));
        let failed = count(1, "failed");
        println!(
            "{event:25} {:3} {:3} {:3}           {:3} {:3} {:3} {failed:6}",
            reads[0], reads[1], reads[2], writes[0], writes[1], writes[2]
        );
        assert_eq!(count(0, "failed"), 0, "reads are always answered");
        match now.iter().position(|role| *role == Primary) {
            Some(primary) => assert_eq!(writes[primary], 100),
            None => assert_eq!(failed, 100),
        }
    }
    Ok(())
}
