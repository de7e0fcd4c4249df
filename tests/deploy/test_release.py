"""A release of the chart, from its installation to its end, on a stand-in for a cluster."""

import os

import pytest
import yaml

import manual
from apiserver import ApiServer
from house import CHART, chart, documents, key, program, run

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "luminate"}}
SECRET = {
    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "luminate-secrets", "namespace": "luminate"},
    "stringData": {"jwt-secret": "a-secret-of-32-bytes-for-the-test-only", "clickhouse-password": "p", "redis-password": "p"},
}


@pytest.fixture
def cluster(tmp_path):
    with ApiServer() as cluster:
        # Nothing of who runs the tests is read or written.
        cluster.environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": cluster.kubeconfig(tmp_path / "kubeconfig"),
        }
        yield cluster


def helm(cluster, *arguments, check=True):
    return run(program("helm"), *arguments, "--namespace", "luminate", env=cluster.environment, check=check)


def apply(cluster, *documents):
    text = yaml.safe_dump_all(documents)
    run(program("kubectl"), "apply", "-f", "-", env=cluster.environment, input=text)


def names(cluster):
    """What there is of the chart's making."""
    kinds = ("Deployment", "StatefulSet", "Service", "ConfigMap", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress",
             "NetworkPolicy", "ServiceAccount", "Job", "CronJob", "ServiceMonitor", "PodMonitor", "ScaledObject")
    return cluster.all(*kinds)


def rendered(*arguments):
    return {key(d)[::2] for d in documents(chart("--skip-tests", *arguments).stdout)}


def scale(cluster, replicas):
    """What the autoscaler does."""
    run(program("kubectl"), "-n", "luminate", "scale", "deployment/luminate", f"--replicas={replicas}", env=cluster.environment)


def test_a_release_is_installed_changed_taken_back_and_removed(cluster):
    apply(cluster, NAMESPACE, SECRET)
    said = helm(cluster, "install", "luminate", CHART, "--wait", "--timeout", "60s").stdout
    assert "luminate token create" in said and "https://luminate.yourdomain.com" in said
    assert "wait for the Secret luminate-secrets, with jwt-secret and clickhouse-password." in said
    # Those who cannot become ready without tables are not waited for before there are any.
    assert said.index("schema apply") < said.index("rollout status")
    assert names(cluster) == rendered()
    first = cluster.get("Deployment", "luminate")
    scale(cluster, 6)

    helm(cluster, "upgrade", "luminate", CHART, "--wait", "--timeout", "60s",
         "--set", "config.query.timeout=1m", "--set", "overrides.team-a.samples_per_second=5")
    second = cluster.get("Deployment", "luminate")
    assert "timeout: 1m" in cluster.get("ConfigMap", "luminate-config")["data"]["luminate.yaml"]
    assert "team-a" in cluster.get("ConfigMap", "luminate-config")["data"]["overrides.yaml"]
    assert second["spec"]["template"] != first["spec"]["template"]
    assert second["spec"]["selector"] == first["spec"]["selector"]
    # The autoscaler's, not set back.
    assert second["spec"]["replicas"] == 6

    wrong = helm(cluster, "upgrade", "luminate", CHART, "--set", "keda.enabled=true", check=False)
    assert wrong.returncode != 0 and "keda.prometheusAddress" in wrong.stderr
    assert cluster.get("Deployment", "luminate")["spec"] == second["spec"]

    helm(cluster, "rollback", "luminate", "1", "--wait", "--timeout", "60s")
    third = cluster.get("Deployment", "luminate")
    assert third["spec"]["template"] == first["spec"]["template"] and third["spec"]["replicas"] == 6
    assert "team-a" not in cluster.get("ConfigMap", "luminate-config")["data"]["overrides.yaml"]

    helm(cluster, "uninstall", "luminate", "--wait", "--timeout", "60s")
    assert names(cluster) == set()
    assert cluster.get("Secret", "luminate-secrets"), "a Secret that was there before is not ours to remove"


def test_a_release_is_tested_from_inside_of_the_cluster(cluster):
    apply(cluster, NAMESPACE, SECRET, {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": "luminate"}, "stringData": {"token": "t"},
    })
    helm(cluster, "install", "luminate", CHART, "--set", "tests.tokenSecret=token")
    said = helm(cluster, "test", "luminate", "--timeout", "60s").stdout
    for suite in ("luminate-test-health", "luminate-test-smoke"):
        assert f"TEST SUITE:     {suite}" in said
        pod = cluster.get("Job", suite)["spec"]["template"]
        assert "--server=http://luminate-svc.luminate:8080" in pod["spec"]["containers"][0]["args"]
    assert said.count("Succeeded") == 3


def test_a_disk_outlives_its_release(cluster):
    apply(cluster, NAMESPACE)
    mode = ("--set", "mode=standalone", "--set", "secrets.existingSecret=", "--set", "secrets.jwtSecret=" + "s" * 32)
    helm(cluster, "install", "luminate", CHART, "--wait", "--timeout", "60s", *mode)
    assert names(cluster) | {("Secret", "luminate-secrets")} == rendered(*mode)
    helm(cluster, "upgrade", "luminate", CHART, "--wait", "--timeout", "60s", *mode, "--set", "config.log.level=debug")
    helm(cluster, "uninstall", "luminate", "--wait", "--timeout", "60s")
    assert names(cluster) == set() and not cluster.get("Secret", "luminate-secrets")
    assert cluster.get("PersistentVolumeClaim", "data-luminate-0")


def test_a_disk_grows_as_the_readme_says(cluster):
    (commands,) = [b.text for b in manual.blocks(CHART / "README.md") if "persistence.size" in b.text]
    apply(cluster, NAMESPACE, SECRET)
    helm(cluster, "install", "luminate", CHART, "--set", "mode=standalone", "--wait", "--timeout", "60s")
    last = commands.strip().splitlines()[-1].removeprefix("$ helm ").split()
    assert "Forbidden" in helm(cluster, *last, check=False).stderr
    path = os.pathsep.join([os.path.dirname(program("helm")), os.environ["PATH"]])
    script = "\n".join(line.removeprefix("$ ") for line in commands.splitlines())
    run("bash", "-euc", script, env={**cluster.environment, "PATH": path})
    assert cluster.get("StatefulSet", "luminate")["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "200Gi"
    assert cluster.get("PersistentVolumeClaim", "data-luminate-0")["spec"]["resources"]["requests"]["storage"] == "200Gi"


def test_tables_are_made_before_gateways_are(cluster):
    apply(cluster, NAMESPACE, SECRET)
    more = ("-f", CHART / "ci/keda.yaml", "--set", "schemaJob.enabled=true", "--set", "backup.enabled=true", "--set", "canary.enabled=false")
    helm(cluster, "install", "luminate", CHART, "--timeout", "60s", *more)
    made = [path.split("?")[0] for method, path, _ in cluster.requests if method in ("POST", "PATCH")]

    def first(part):
        return next(i for i, path in enumerate(made) if part in path)

    assert first("/configmaps") < first("/jobs") < first("/deployments")
    # Hooks have cleaned up behind them.
    assert not cluster.get("Job", "luminate-schema") and not cluster.get("ConfigMap", "luminate-schema")
    assert cluster.get("CronJob", "luminate-backup") and cluster.get("ScaledObject", "luminate")
    assert not cluster.get("HorizontalPodAutoscaler", "luminate-hpa")


def play_keda(cluster):
    """What KEDA does: for each ScaledObject an autoscaler with its labels and annotations, which goes with it."""
    scaled = cluster.get("ScaledObject", "luminate")
    if not scaled:
        for kind, name in cluster.all("HorizontalPodAutoscaler"):
            if "ownerReferences" in cluster.get(kind, name)["metadata"]:
                run(program("kubectl"), "-n", "luminate", "delete", "hpa", name, env=cluster.environment)
        return
    spec, about = scaled["spec"], scaled["metadata"]
    apply(cluster, {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": spec["advanced"]["horizontalPodAutoscalerConfig"].get("name", f"keda-hpa-{about['name']}"),
            "namespace": "luminate", "labels": about["labels"], "annotations": about["annotations"],
            "ownerReferences": [{"apiVersion": scaled["apiVersion"], "kind": "ScaledObject", "name": about["name"], "uid": about["uid"]}],
        },
        "spec": {"scaleTargetRef": spec["scaleTargetRef"], "minReplicas": spec["minReplicaCount"], "maxReplicas": spec["maxReplicaCount"]},
    })


@pytest.mark.parametrize("back", [
    ("rollback", "luminate", "1"),
    ("upgrade", "luminate", CHART, "--reset-then-reuse-values", "--set", "keda.enabled=false"),
])
def test_keda_takes_the_autoscalers_place_and_gives_it_back(cluster, back):
    apply(cluster, NAMESPACE, SECRET)
    helm(cluster, "install", "luminate", CHART)
    scale(cluster, 5)
    # By which KEDA's webhook lets a ScaledObject be made beside it: Helm removes last.
    ours = cluster.get("HorizontalPodAutoscaler", "luminate-hpa")
    assert ours["metadata"]["annotations"]["validations.keda.sh/hpa-ownership"] == "false"
    helm(cluster, "upgrade", "luminate", CHART, "--reset-then-reuse-values", "--set", "keda.enabled=true",
         "--set", "keda.prometheusAddress=http://p:9090")
    play_keda(cluster)
    assert cluster.get("ScaledObject", "luminate") and not cluster.get("HorizontalPodAutoscaler", "luminate-hpa")
    assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == 5
    helm(cluster, *back)
    play_keda(cluster)
    assert cluster.all("ScaledObject", "HorizontalPodAutoscaler") == {("HorizontalPodAutoscaler", "luminate-hpa")}
    assert "ownerReferences" not in cluster.get("HorizontalPodAutoscaler", "luminate-hpa")["metadata"]
    assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == 5


def test_pods_wait_for_a_secret_that_is_not_there(cluster):
    apply(cluster, NAMESPACE)
    done = helm(cluster, "install", "luminate", CHART, "--wait", "--timeout", "3s", check=False)
    assert done.returncode != 0
    apply(cluster, SECRET)
    helm(cluster, "upgrade", "--install", "luminate", CHART, "--wait", "--timeout", "60s")
