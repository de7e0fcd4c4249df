//! What the Kubernetes manifests say of gateways: their configuration, and how and when they are replaced.

use std::{fs, path::Path, time::Duration};

use serde_yaml::Value;

/// The Deployment and its configuration, as far as replacing pods goes.
#[derive(Debug)]
pub struct Manifest {
    /// The file that gateways read.
    pub config: String,
    /// The limits of tenants.
    pub overrides: String,
    pub replicas: usize,
    /// How many gateways there may be more, and fewer, while they are replaced.
    pub max_surge: usize,
    pub max_unavailable: usize,
    /// Asked until it answers 200; then requests come.
    pub readiness_path: String,
    /// What the hook before SIGTERM runs, without the binary's path.
    pub pre_stop: Vec<String>,
    /// For how long that goes on.
    pub pre_stop_time: Duration,
    /// From the beginning of the hook to SIGKILL.
    pub termination_grace: Duration,
    /// `server.shutdown` of the configuration.
    pub shutdown_delay: Duration,
    pub shutdown_grace: Duration,
}

impl Manifest {
    /// Reads deployments/kubernetes.
    pub fn read() -> Self {
        let (deployment, config_map) = (document("deployment.yaml"), document("configmap.yaml"));
        let spec = &deployment["spec"];
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        let config = text(&config_map["data"]["luminate.yaml"]);
        let shutdown = &serde_yaml::from_str::<Value>(&config).unwrap()["server"]["shutdown"];
        let pre_stop: Vec<String> = container["lifecycle"]["preStop"]["exec"]["command"]
            .as_sequence()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        assert_eq!(pre_stop[0], "/usr/local/bin/luminate", "{pre_stop:?}");
        assert_eq!(pre_stop[1], "sleep", "{pre_stop:?}");
        Self {
            overrides: text(&config_map["data"]["overrides.yaml"]),
            replicas: number(&spec["replicas"]),
            max_surge: number(&spec["strategy"]["rollingUpdate"]["maxSurge"]),
            max_unavailable: number(&spec["strategy"]["rollingUpdate"]["maxUnavailable"]),
            readiness_path: text(&container["readinessProbe"]["httpGet"]["path"]),
            pre_stop_time: Duration::from_secs(pre_stop[2].parse().unwrap()),
            pre_stop: pre_stop[1..].to_vec(),
            termination_grace: Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap()),
            shutdown_delay: shutdown.get("delay").map_or(Duration::ZERO, seconds),
            shutdown_grace: seconds(&shutdown["grace"]),
            config,
        }
    }
}

fn document(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deployments/kubernetes").join(name);
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// A duration in whole seconds, as our manifests have it.
fn seconds(value: &Value) -> Duration {
    let digits = value.as_str().and_then(|text| text.strip_suffix('s'));
    Duration::from_secs(digits.and_then(|digits| digits.parse().ok()).expect("a duration like 30s"))
}

#[test]
fn what_happens_at_the_end_fits_into_the_grace_period() {
    let manifest = Manifest::read();
    let needed = manifest.pre_stop_time + manifest.shutdown_delay + manifest.shutdown_grace;
    assert!(needed < manifest.termination_grace, "{manifest:?}");
}
