//! A cluster of three: all buckets of a tenant are on one node, and without that node only its tenants are on their own.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use super::setting::{Gateway, RedisServer, config, samples, tenant, until};
use crate::server::have;
use luminate::{
    gateway::limit::buckets::{Buckets, Draw},
    model::Limit,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_over_a_cluster() {
    if !have("redis-cli") {
        return;
    }
    let cluster = [
        ["--cluster-enabled", "yes"],
        ["--cluster-node-timeout", "2000"],
        ["--cluster-require-full-coverage", "no"],
    ]
    .concat();
    let Some(mut nodes) = (0..3).map(|_| RedisServer::start(&cluster)).collect::<Option<Vec<_>>>() else {
        return;
    };
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
        .arg("--cluster-yes")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    until("all nodes agree", async || {
        nodes.iter().all(|node| {
            let info: String = node.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    })
    .await;

    // One address is enough to find all.
    let mut first = config(&nodes[0]);
    first.cluster = true;
    let (one, other) = (Gateway::connected(&first).await, Gateway::connected(&first).await);
    let bytes = Draw { limit: Limit::Bytes, rate: 1, burst: 300_000, cost: 300_000 };
    for n in 0..50 {
        let team = tenant(&format!("team-{n}"));
        assert_eq!(one.buckets.take(&team, &[samples(1, 300_000, 300_000), bytes]).await, Ok(()));
        let short = other.buckets.take(&team, &[samples(1, 300_000, 300_000), bytes]).await;
        assert!(short.is_err(), "{n}");
    }
    let tenants_of = |node: &RedisServer| -> BTreeSet<String> {
        let keys: Vec<String> = node.ask("KEYS luminate:{*");
        keys.iter().map(|key| key[key.find('{').unwrap()..key.find('}').unwrap()].to_owned()).collect()
    };
    let spread: Vec<BTreeSet<String>> = nodes.iter().map(tenants_of).collect();
    assert!(spread.iter().all(|tenants| !tenants.is_empty()), "{spread:?}");
    assert_eq!(
        spread.iter().map(BTreeSet::len).sum::<usize>(),
        50,
        "each tenant is in one place: {spread:?}"
    );

    nodes[2].kill();
    // The gateway's share may be had once by those who cannot be counted; for all others nothing changes.
    let (mut alone, mut counted) = (0, 0);
    for n in 0..50 {
        let team = tenant(&format!("team-{n}"));
        let draw = samples(1, 300_000, 90_000);
        if spread[2].contains(&format!("{{team-{n}")) {
            // It is believed for a moment that its bucket is empty still.
            until("a share is taken", async || one.takes(&team, draw).await).await;
            assert!(!one.takes(&team, draw).await, "team-{n}");
            alone += 1;
        } else if !one.takes(&team, draw).await {
            // Not quite all of them: a node that is gone may take others with it until the cluster has noticed.
            counted += 1;
        }
    }
    assert!(alone > 0 && counted > 0, "{alone} on their own, {counted} counted together");
}
