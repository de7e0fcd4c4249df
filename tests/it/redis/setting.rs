//! A `redis-server`, and gateways over it.

use std::{
    future::Future,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use luminate::{
    clock::{Clock, SystemClock},
    gateway::{
        limit::{
            buckets::{Buckets, Draw},
            shared::SharedBuckets,
        },
        redis::{LinkState, RedisConfig, RedisLink, breaker::BreakerLimits},
    },
    model::{Limit, TenantId},
};
use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

use crate::{
    patience::{PATIENCE, wait_for},
    server::{free_port, have},
};

/// A `redis-server` on a port and in a directory of its own; killed when dropped.
pub struct RedisServer {
    child: Child,
    pub port: u16,
    arguments: Vec<String>,
    dir: TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers; none if there is no such program here.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), free_port(), arguments)
    }

    pub fn start_in(dir: TempDir, port: u16, arguments: &[&str]) -> Option<Self> {
        if !have("redis-server") {
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(dir.path(), port, &arguments);
        let server = Self { child, port, arguments, dir };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        wait_for("redis-server to listen", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command as the default user without a password.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        ask(&mut self.connection(), command)
    }

    pub fn connection(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Microseconds since the epoch, by its clock.
    pub fn time(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask("TIME");
        seconds * 1_000_000 + micros
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Makes it silent without closing anything.
    pub fn stall(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same address.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), self.port, &self.arguments);
        self.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

pub fn ask<T: FromRedisValue>(connection: &mut Connection, command: &str) -> T {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        asked.arg(word);
    });
    asked.query(connection).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// How a gateway reaches a server, with patience that a busy machine does not use up.
pub fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig {
        addresses: vec![("127.0.0.1".to_owned(), server.port)],
        cluster: false,
        tls: None,
        username: None,
        password: None,
        db: 0,
        prefix: "luminate".to_owned(),
        connect_timeout: Duration::from_secs(5),
        breaker: BreakerLimits {
            failures: 5,
            min_open: Duration::from_millis(50),
            max_open: Duration::from_secs(1),
        },
        seed: 7,
    }
}

/// What one gateway has of Redis.
pub struct Gateway {
    pub link: Arc<RedisLink>,
    pub buckets: SharedBuckets,
    pub clock: Arc<dyn Clock>,
}

impl Gateway {
    /// A gateway of three that waits so long for Redis.
    pub fn over(config: &RedisConfig, patience: Duration) -> Self {
        let clock: Arc<dyn Clock> = SystemClock::start();
        let link = RedisLink::start(config, Arc::clone(&clock)).unwrap();
        let buckets = SharedBuckets::new(Arc::clone(&link), Arc::clone(&clock), patience, 3);
        Self { link, buckets, clock }
    }

    /// The same, connected.
    pub async fn connected(config: &RedisConfig) -> Self {
        let gateway = Self::over(config, Duration::from_secs(10));
        gateway.until(LinkState::Closed).await;
        gateway
    }

    pub async fn until(&self, state: LinkState) {
        until(&format!("{state:?}: {:?}", self.link.check()), async || self.link.state() == state).await;
    }

    /// Takes, and tells whether there was enough.
    pub async fn takes(&self, tenant: &TenantId, draw: Draw) -> bool {
        self.buckets.take(tenant, &[draw]).await.is_ok()
    }
}

/// Waits for something to become true, for longer than it could ever take.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn samples(rate: u64, burst: u64, cost: u64) -> Draw {
    Draw { limit: Limit::Samples, rate, burst, cost }
}
