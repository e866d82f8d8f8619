//! Commands to Redis through `run`: the server is killed, calls are refused at once, and the server is started again.
//!
//! `cargo run --package example-databases --bin redis`

use std::error::Error;
use std::time::Duration;

use buttress::Outcome;
use buttress::client::{CallError, Client, ErrorsOf};
use example_databases::{Server, outage};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, RedisError};

const MS: Duration = Duration::from_millis(1);

/// A client for functions that return the errors of Redis.
type Commands = Client<ErrorsOf<fn(&RedisError) -> Outcome>>;

/// The recipe.
#[derive(Clone)]
struct Sessions {
    redis: ConnectionManager,
    client: Commands,
}

/// An error answer means a mistake of the caller, unless the server is loading, busy or has lost its primary.
fn classify(error: &RedisError) -> Outcome {
    match error.code() {
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN") | None => {
            Outcome::Failure
        }
        Some(_) => Outcome::Success,
    }
}

impl Sessions {
    fn new(port: u16) -> Result<Self, Box<dyn Error>> {
        // The manager connects again when a call has failed. The next call waits for the connection or gets its error.
        // Only the stack makes further attempts and sets timeouts for answers.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(200 * MS))
            .set_response_timeout(None);
        let redis = redis::Client::open(("127.0.0.1", port))?;
        let redis = ConnectionManager::new_lazy_with_config(redis, config)?;
        let client = buttress::client("sessions")
            .timeout(200 * MS)
            .deadline(1_000 * MS)
            .concurrency_limit(100)
            .circuit_breaker(|breaker| breaker.consecutive_failures(6).open_for(500 * MS))
            .classify_errors(classify as fn(&RedisError) -> Outcome)
            .build()?;
        Ok(Self { redis, client })
    }

    /// Reading twice does no harm, nor does writing the same value twice.
    async fn user(&self, session: &str) -> Result<Option<String>, CallError<RedisError>> {
        self.client
            .run(async || self.redis.clone().get(session).await)
            .await
    }

    async fn begin(&self, session: &str, user: &str) -> Result<(), CallError<RedisError>> {
        self.client
            .run(async || self.redis.clone().set_ex(session, user, 3_600).await)
            .await
    }

    /// A command that counts is not sent again after it may have been executed.
    async fn visit(&self, page: &str) -> Result<u64, CallError<RedisError>> {
        self.client
            .run_once(async || self.redis.clone().incr(page, 1).await)
            .await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::redis().await?;
    let sessions = Sessions::new(server.port())?;
    sessions.begin("8e03978e", "ann").await?;
    let user = sessions.user("8e03978e").await?;
    println!("{user:?}, {} visit", sessions.visit("/stock").await?);
    assert_eq!(user.as_deref(), Some("ann"));

    // Mistakes of callers do not open the circuit breaker, however many there are.
    for _ in 0..10 {
        let Err(CallError::Inner(error)) = sessions.visit("8e03978e").await else {
            return Err("a name is no number".into());
        };
        assert_eq!(error.code(), Some("ERR"));
    }

    outage(&mut server, &sessions.client.handle(), async || {
        sessions.user("8e03978e").await
    })
    .await?;
    assert_eq!(sessions.user("8e03978e").await?, None, "its memory is lost");
    server.stop().await
}
