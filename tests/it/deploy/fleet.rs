//! The gateways of a Deployment, and how Kubernetes replaces them.
//!
//! ```text
//! a new one starts ─ is ready ─ gets requests ─┬─ the old one's hook runs ──────────── SIGTERM ─ it finishes, ends
//!                                              └─ (a while) ─ the old one gets no requests
//! ```
//!
//! The hook and the endpoint's removal begin together, and nothing waits for the removal: that it has come
//! about when the hook ends is what the hook is for. Here it comes after a third of the hook's time.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use super::manifest::Manifest;
use crate::{
    clickhouse::{faults::NO_DIRECTORY, front::Front, proxy::Proxy, schema, witness::get},
    patience::wait_for,
    server::{Options, Server, free_port, luminate},
    token,
};

/// By how much waiting is shorter than in the manifest, unless `LUMINATE_TEST_ROLLING=full`.
const SHORTER: u32 = 5;

/// The time that something takes here that takes `time` in a cluster.
fn scaled(time: Duration) -> Duration {
    let full = std::env::var("LUMINATE_TEST_ROLLING").is_ok_and(|how| how == "full");
    if full { time } else { time / SHORTER }
}

/// A gateway, and its way to ClickHouse.
#[derive(Debug)]
pub struct Gateway {
    pub server: Server,
    pub proxy: Proxy,
    /// Where it is operated.
    pub admin: String,
}

impl Gateway {
    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// How many requests for data it works on.
    pub fn in_flight(&self) -> usize {
        let (_, _, metrics) = get(&self.admin, "/metrics", &[]).unwrap();
        let of = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let counts = name.starts_with("luminate_http_in_flight_requests{") && !name.contains("metrics");
            counts.then(|| value.trim_end_matches(".0").parse::<usize>().unwrap())
        };
        metrics.lines().filter_map(of).sum()
    }
}

/// The gateways of the Deployment, over one ClickHouse.
#[derive(Debug)]
pub struct Fleet {
    // First, so that they are gone before their ClickHouse.
    pub gateways: Vec<Gateway>,
    pub front: Front,
    pub manifest: Manifest,
    /// What is mounted into their pods.
    mounts: tempfile::TempDir,
}

impl Fleet {
    /// As many as the Deployment says, ready; none if there is no ClickHouse to test with.
    pub fn start() -> Option<Self> {
        let front = Front::start()?;
        schema::apply(&front);
        let (manifest, mounts) = (Manifest::read(), tempfile::tempdir().unwrap());
        assert_eq!((manifest.max_surge, manifest.max_unavailable), (1, 0), "what is played here");
        for (name, content) in [
            ("luminate.yaml", manifest.config.as_str()),
            ("overrides.yaml", &manifest.overrides),
            ("jwt-secret", token::SECRET),
            ("clickhouse-password", "nobody asks for it"),
        ] {
            fs::write(mounts.path().join(name), content).unwrap();
        }
        let mut fleet = Self { gateways: Vec::new(), front, manifest, mounts };
        fleet.gateways = (0..fleet.manifest.replicas).map(|_| fleet.spawn()).collect();
        fleet.gateways.iter().for_each(|gateway| fleet.wait_ready(gateway));
        Some(fleet)
    }

    /// The ports for requests.
    pub fn ports(&self) -> Vec<u16> {
        self.gateways.iter().map(|gateway| gateway.server.port).collect()
    }

    /// Replaces all gateways, one after the other. `turn_to` sends new requests to the gateways at these ports;
    /// `stopping` sends SIGTERM to a gateway whose hook is over,
    /// and may look at it and at the others.
    pub fn roll(&mut self, mut turn_to: impl FnMut(&[u16]), mut stopping: impl FnMut(&Gateway, &[Gateway])) {
        for _ in 0..self.manifest.replicas {
            let new = self.spawn();
            self.wait_ready(&new);
            self.gateways.push(new);
            turn_to(&self.ports());

            let hook = self.manifest.pre_stop_time;
            let mut sleeping = luminate()
                .args(&self.manifest.pre_stop[..1])
                .arg(format!("{}ms", scaled(hook).as_millis()))
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(scaled(hook) / 3);
            let mut old = self.gateways.remove(0);
            turn_to(&self.ports());
            assert!(sleeping.wait().unwrap().success());

            let told = Instant::now();
            stopping(&old, &self.gateways);
            let status = old.server.wait_for_end();
            assert!(status.success(), "{status}");
            let left = self.manifest.termination_grace - hook;
            assert!(told.elapsed() < left, "a gateway ends {:?} after SIGTERM", told.elapsed());
        }
    }

    /// Starts a gateway with the configuration of the manifest, at ports that are free here, and does not wait.
    fn spawn(&self) -> Gateway {
        let proxy = Proxy::start(&self.front.url);
        let admin = format!("127.0.0.1:{}", free_port());
        let mounted = |name: &str| self.mounts.path().join(name).to_str().unwrap().to_owned();
        let delay = format!("{}ms", scaled(self.manifest.shutdown_delay).as_millis());
        let options = Options { quiet: true, ..Options::default() }
            .env("LUMINATE_CONFIG_FILE", &mounted("luminate.yaml"))
            .env("LUMINATE_SERVER__ADMIN_LISTEN", &admin)
            .env("LUMINATE_SERVER__SHUTDOWN__DELAY", &delay)
            .env("LUMINATE_AUTH__JWT__SECRET_FILE", &mounted("jwt-secret"))
            .env("LUMINATE_LIMITS__OVERRIDES_FILE", &mounted("overrides.yaml"))
            .env("LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES", &proxy.url())
            .env("LUMINATE_STORAGE__CLICKHOUSE__DATABASE", &self.front.database)
            .env("LUMINATE_STORAGE__CLICKHOUSE__PASSWORD_FILE", &mounted("clickhouse-password"));
        let server = Server::spawn(Path::new(NO_DIRECTORY), &options);
        Gateway { server, proxy, admin: format!("http://{admin}") }
    }

    fn wait_ready(&self, gateway: &Gateway) {
        let ready = || get(&gateway.url(), &self.manifest.readiness_path, &[]);
        wait_for("a gateway to be ready", || ready().is_ok_and(|(status, ..)| status == 200));
    }
}
