//! Servers of databases, which the recipes start, kill and start again.

use std::error::Error;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use buttress::ErrorKind;
use buttress::circuit_breaker::State;
use buttress::client::CallError;
use buttress::stack::Handle;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The user `nobody` of Debian. PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;
/// Time that a server has until it takes connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a folder of its own, on a free port. It ends with this value.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts PostgreSQL, with a new cluster whose superuser is `postgres`.
    ///
    /// # Errors
    ///
    /// If it is not installed or does not start.
    pub async fn postgres() -> Result<Self, Box<dyn Error>> {
        let programs =
            postgres_programs().ok_or("PostgreSQL is not installed: apt install postgresql")?;
        let mut server = Self::new("postgres", programs.join("postgres"))?;
        let data = server.folder.join("data").display().to_string();
        let cluster = [
            "--auth=trust",
            "--no-sync",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
        ];
        let made = server
            .command(&programs.join("initdb"))
            .args(cluster)
            .args(["--pgdata", &data])
            .output()
            .await?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into());
        }
        let port = server.address.port().to_string();
        let arguments = ["-D", &data, "-h", "127.0.0.1", "-p", &port, "-k", "", "-F"];
        server.arguments = arguments.map(str::to_owned).into();
        server.start().await?;
        Ok(server)
    }

    /// Starts Redis, without files.
    ///
    /// # Errors
    ///
    /// If it is not installed or does not start.
    pub async fn redis() -> Result<Self, Box<dyn Error>> {
        let mut server = Self::new("redis", "redis-server".into())?;
        let port = server.address.port().to_string();
        let arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        server.arguments = arguments.map(str::to_owned).into();
        server.start().await?;
        Ok(server)
    }

    fn new(name: &str, program: PathBuf) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("buttress-{name}-{}", process::id()));
        fs::create_dir(&folder)?;
        if fs::metadata(&folder)?.uid() == 0 {
            chown(&folder, Some(NOBODY), Some(NOBODY))?;
        }
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self {
            program,
            arguments: Vec::new(),
            folder,
            address,
            child: None,
        })
    }

    /// A program that runs in the folder, as its owner.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Ok(folder) = fs::metadata(&self.folder).map(|folder| (folder.uid(), folder.gid())) {
            command.uid(folder.0).gid(folder.1);
        }
        command
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let connects = async {
            loop {
                // It ends at once as long as processes of its predecessor are alive.
                let is_running = self
                    .child
                    .as_mut()
                    .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
                if !is_running {
                    let child = self
                        .command(&self.program)
                        .args(&self.arguments)
                        .kill_on_drop(true)
                        .spawn();
                    self.child = Some(child?);
                }
                sleep(Duration::from_millis(50)).await;
                if TcpStream::connect(self.address).await.is_ok() {
                    return Ok(());
                }
            }
        };
        match timeout(PATIENCE, connects).await {
            Ok(Err(error)) if io::Error::kind(&error) == io::ErrorKind::NotFound => {
                Err("Redis is not installed: apt install redis-server".into())
            }
            Ok(started) => Ok(started?),
            Err(_) => Err(format!("{} does not start", self.program.display()).into()),
        }
    }

    /// Kills the server as `kill -9` does.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub async fn kill(&mut self) -> io::Result<()> {
        match &mut self.child {
            Some(child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Ends the server as Ctrl-C does.
    ///
    /// # Errors
    ///
    /// If it cannot be told, or does not end.
    pub async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        if let Some(child) = &mut self.child {
            let process = child.id().ok_or("has ended by itself")?.to_string();
            Command::new("kill")
                .args(["-INT", &process])
                .status()
                .await?;
            timeout(PATIENCE, child.wait()).await??;
        }
        Ok(())
    }

    /// Its port on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.take());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Kills the server while calls go on, one after the other, and starts it again.
///
/// # Errors
///
/// If the server does not start.
///
/// # Panics
///
/// If calls are not refused while the server is gone, or are not answered afterwards.
pub async fn outage<T, E: Error>(
    server: &mut Server,
    handle: &Handle,
    call: impl AsyncFn() -> Result<T, CallError<E>>,
) -> Result<(), Box<dyn Error>> {
    println!("the server is killed");
    server.kill().await?;
    // Calls that are given up at first, with a few attempts each, until the circuit breaker opens.
    let failed = tell_until(&call, |result| match result {
        Err(CallError::Stack(error)) => error.kind() == ErrorKind::CircuitOpen,
        _ => false,
    });
    assert!(failed.await < 20, "the breaker opens");

    println!("it is started again");
    server.start().await?;
    let breaker = handle.circuit_breaker().ok_or("it is on")?;
    // A few calls are let through as probes, and then all.
    tell_until(&call, |result| {
        result.is_ok() && breaker.state() == State::Closed
    })
    .await;
    Ok(())
}

/// Calls until a result is right, and prints each one. Returns the number of results before it.
async fn tell_until<T, E: Error>(
    call: impl AsyncFn() -> Result<T, CallError<E>>,
    is_right: impl Fn(&Result<T, CallError<E>>) -> bool,
) -> u32 {
    let began = Instant::now();
    let mut others = 0;
    loop {
        let start = Instant::now();
        let result = call().await;
        let took = start.elapsed().as_millis();
        match &result {
            Ok(_) => println!("  an answer, after {took} ms"),
            Err(error) => println!("  after {took} ms: {error}"),
        }
        if is_right(&result) {
            return others;
        }
        assert!(began.elapsed() < PATIENCE, "no such result");
        others += 1;
        sleep(Duration::from_millis(100)).await;
    }
}

/// The folder of the newest version that is installed by Debian.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs
        .filter(|programs| programs.join("initdb").exists())
        .max()
}
