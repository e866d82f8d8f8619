//! Queries to PostgreSQL through `run`: the server is killed, calls are refused at once, and the server is started
//! again.
//!
//! `cargo run --package example-databases --bin postgres`

use std::error::Error;
use std::time::Duration;

use buttress::Outcome;
use buttress::client::{CallError, Client, ErrorsOf};
use deadpool_postgres::{Manager, Pool, PoolError};
use example_databases::{Server, outage};
use tokio_postgres::{NoTls, error::SqlState};

const MS: Duration = Duration::from_millis(1);

/// A client for functions that return the errors of the pool.
type Db = Client<ErrorsOf<fn(&PoolError) -> Outcome>>;

/// The recipe.
#[derive(Clone)]
struct Stock {
    pool: Pool,
    db: Db,
}

/// An error answer means a mistake of the caller, unless its class means that the server is in trouble.
fn classify(error: &PoolError) -> Outcome {
    let PoolError::Backend(error) = error else {
        return Outcome::Failure;
    };
    match error.code().map(|state| state.code().as_bytes()) {
        // No resources, a shutdown, or a conflict with another transaction.
        Some([b'5', b'3' | b'7' | b'8', ..] | [b'4', b'0', ..]) | None => Outcome::Failure,
        Some(_) => Outcome::Success,
    }
}

impl Stock {
    fn new(port: u16) -> Result<Self, Box<dyn Error>> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("postgres");
        // `Pool::get` replaces closed connections, within an attempt.
        let pool = Pool::builder(Manager::new(config, NoTls))
            .max_size(10)
            .build()?;
        let db = buttress::client("db")
            .timeout(500 * MS) // the wait for a connection, and the query
            .deadline(2_000 * MS)
            .concurrency_limit(10) // as many as there are connections
            .circuit_breaker(|breaker| breaker.consecutive_failures(6).open_for(500 * MS))
            .classify_errors(classify as fn(&PoolError) -> Outcome)
            .build()?;
        Ok(Self { pool, db })
    }

    /// A query does no harm twice, so it is retried.
    async fn count(&self, item: &str) -> Result<i32, CallError<PoolError>> {
        let query = async || {
            let connection = self.pool.get().await?;
            let row = connection
                .query_one("SELECT count FROM stock WHERE item = $1", &[&item])
                .await?;
            Ok(row.get(0))
        };
        self.db.run(query).await
    }

    /// An insert is not sent again after it may have been executed.
    async fn add(&self, item: &str, count: i32) -> Result<(), CallError<PoolError>> {
        let insert = async || {
            let connection = self.pool.get().await?;
            connection
                .execute("INSERT INTO stock VALUES ($1, $2)", &[&item, &count])
                .await?;
            Ok(())
        };
        self.db.run_once(insert).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::postgres().await?;
    let stock = Stock::new(server.port())?;
    let table = async || {
        let connection = stock.pool.get().await?;
        connection
            .batch_execute("CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, count int)")
            .await?;
        Ok(())
    };
    stock.db.run(table).await?;
    stock.add("bolts", 12).await?;
    println!("{} bolts", stock.count("bolts").await?);

    // Mistakes of callers do not open the circuit breaker, however many there are.
    for _ in 0..10 {
        let Err(CallError::Inner(PoolError::Backend(error))) = stock.add("bolts", 12).await else {
            return Err("it is there already".into());
        };
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    }

    outage(&mut server, &stock.db.handle(), async || {
        stock.count("bolts").await
    })
    .await?;
    server.stop().await
}
