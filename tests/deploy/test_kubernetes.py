"""`make k8s-deploy` and its like, against a stand-in for a cluster, and what they deploy against the real binary."""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from apiserver import ApiServer
from house import CHART, DEPLOYMENTS, KUBERNETES, ROOT, documents, kustomize, luminate, oldest, program, run
from workloads import kubernetes as workloads

# What the deployment guide says is created, and what else a deployment is made of.
GUIDE = {
    ("Namespace", "luminate"), ("ConfigMap", "luminate-config"), ("Secret", "luminate-secrets"),
    ("Deployment", "luminate"), ("Service", "luminate-svc"), ("HorizontalPodAutoscaler", "luminate-hpa"),
}
AROUND = {
    ("PodDisruptionBudget", "luminate"), ("Ingress", "luminate"), ("ServiceAccount", "luminate"),
    ("NetworkPolicy", "default-deny"), ("NetworkPolicy", "luminate"),
}
REDIS = {
    ("ConfigMap", "luminate-redis"), ("Deployment", "luminate-redis"), ("Service", "luminate-redis"),
    ("NetworkPolicy", "luminate-redis"), ("NetworkPolicy", "luminate-to-redis"),
}
DISK = {("PersistentVolumeClaim", "data-luminate-0")}
STANDALONE = (GUIDE | AROUND | {("StatefulSet", "luminate"), ("Service", "luminate-headless"), *DISK}) - {
    ("Deployment", "luminate"), ("HorizontalPodAutoscaler", "luminate-hpa"),
}
OBJECTS = {"scalable": GUIDE | AROUND | REDIS, "standalone": STANDALONE}

JWT = "kH8s1vVxQe0Zt3Wq9LrNb7MyUc5Df2aGpJ4XoTi6"
PASSWORD = 'p"a s$s\\w:örd'


class Tree:
    """A copy of what `make k8s-deploy` reads, to be edited, and a cluster to deploy to."""

    def __init__(self, folder, cluster):
        self.cluster = cluster
        self.root = folder / "tree"
        self.kubernetes = self.root / "deployments" / "kubernetes"
        shutil.copytree(KUBERNETES, self.kubernetes, symlinks=True)
        shutil.copytree(DEPLOYMENTS / "overlays", self.root / "deployments" / "overlays")
        shutil.copy(ROOT / "Makefile", self.root)
        self.env = {"KUBECONFIG": cluster.kubeconfig(folder / "kubeconfig"), "KUBECTL": program("kubectl")}

    def make(self, target, check=True, **env):
        # What runs the tests shall not say how to deploy.
        alien = {"OVERLAY", "VERSION", "DOCKER_REGISTRY", "DOCKER_REPO", "CLICKHOUSE_PASSWORD", "CONFIRM", "DELETE_DATA", "MAKEFLAGS", "MAKELEVEL"}
        inherited = {name: value for name, value in os.environ.items() if name not in alien}
        return run(
            "make", "--no-print-directory", target, cwd=self.root, check=check, timeout=120,
            env={**inherited, **self.env, "ROLLOUT_TIMEOUT": "30s", **env},
        )

    def refused(self, *words, **env):
        """What `make k8s-deploy` says when it refuses, having changed nothing."""
        before = self.cluster.clock
        done = self.make("k8s-deploy", check=False, **env)
        said = done.stdout + done.stderr
        assert done.returncode != 0, said
        assert all(word in done.stderr for word in words), f"{words} are not all in: {said}"
        assert self.cluster.clock == before
        return said

    def secret(self, **values):
        """Edits secret.yaml."""
        document = yaml.safe_load((self.kubernetes / "secret.yaml").read_text())
        for key, value in values.items():
            document["stringData"].pop(key.replace("_", "-"))
            if value is not None:
                document["stringData"][key.replace("_", "-")] = value
        (self.kubernetes / "secret.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))

    def secrets(self):
        """What pods will read."""
        return {key: base64.b64decode(value).decode() for key, value in self.cluster.get("Secret", "luminate-secrets")["data"].items()}


@pytest.fixture
def cluster():
    with ApiServer() as server:
        yield server


@pytest.fixture
def tree(tmp_path, cluster):
    return Tree(tmp_path, cluster)


@pytest.mark.parametrize("which", [program, oldest])
def test_the_base_is_applied_as_it_is(tmp_path, cluster, which):
    kubectl = which("kubectl")
    config = cluster.kubeconfig(tmp_path / "kubeconfig")
    for folder, objects in [(".", GUIDE | AROUND), ("overlays/scalable", OBJECTS["scalable"])]:
        run(kubectl, "--kubeconfig", config, "apply", "-k", KUBERNETES / folder)
        # Placeholders are not among them.
        assert cluster.all() == objects - {("Secret", "luminate-secrets")}
        before = cluster.clock
        run(kubectl, "--kubeconfig", config, "apply", "-k", KUBERNETES / folder)
        assert cluster.clock == before


@pytest.mark.parametrize("overlay", OBJECTS)
@pytest.mark.parametrize("which", [program, oldest])
def test_make_creates_every_object_and_a_second_time_changes_nothing(tree, cluster, overlay, which):
    env = {"OVERLAY": overlay, "CLICKHOUSE_PASSWORD": PASSWORD, "KUBECTL": which("kubectl")}
    tree.make("k8s-deploy", **env)
    assert cluster.all() == OBJECTS[overlay]
    pods = {"scalable": 3, "standalone": 1}[overlay]
    assert len([name for _, name in cluster.all("Pod") if "redis" not in name]) == pods
    assert all(cluster.get("Pod", name)["status"]["phase"] == "Running" for _, name in cluster.all("Pod"))
    before = cluster.clock
    tree.make("k8s-deploy", **env)
    assert cluster.clock == before


def test_nothing_of_the_tree_is_changed_and_nothing_left_behind(tree, tmp_path):
    def contents():
        return {path: path.read_bytes() for path in tree.root.rglob("*") if path.is_file()}

    before = contents()
    (tmp_path / "tmp").mkdir()
    tree.make("k8s-deploy", OVERLAY="standalone", VERSION="0.2.0", TMPDIR=str(tmp_path / "tmp"))
    tree.make("k8s-delete", CONFIRM="yes", TMPDIR=str(tmp_path / "tmp"))
    assert contents() == before
    assert list((tmp_path / "tmp").iterdir()) == []


# ---- Pods


def test_their_number_is_set_once_and_then_the_autoscalers(tree, cluster):
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == 3
    for count in (7, 0):
        run(tree.env["KUBECTL"], "--kubeconfig", tree.env["KUBECONFIG"], "-n", "luminate", "scale", "deployment/luminate", f"--replicas={count}")
        tree.make("k8s-deploy", VERSION=f"0.{count}.0")
        assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == count


def test_a_number_that_was_applied_by_hand_is_the_autoscalers_again(tree, cluster):
    """deployment.yaml by itself says 3; that it is no longer said must not make it Kubernetes' default, which is 1."""
    kubectl = [tree.env["KUBECTL"], "--kubeconfig", tree.env["KUBECONFIG"], "-n", "luminate"]
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    run(*kubectl, "apply", "-f", tree.kubernetes / "deployment.yaml")
    run(*kubectl, "scale", "deployment/luminate", "--replicas=7")
    pods = cluster.all("Pod")
    cluster.requests.clear()
    tree.make("k8s-deploy")
    assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == 7
    assert not any('"replicas":null' in body for _, _, body in cluster.requests)
    assert len(cluster.all("Pod")) == len(pods)


@pytest.mark.parametrize(
    "env, image",
    [
        ({"VERSION": "1.2.3"}, "docker.io/luminate/luminate:1.2.3"),
        ({"DOCKER_REPO": "yourusername"}, "docker.io/yourusername/luminate:0.1.0"),
        ({"VERSION": f"0.1.0@sha256:{'a1' * 32}"}, f"docker.io/luminate/luminate:0.1.0@sha256:{'a1' * 32}"),
        ({"DOCKER_REGISTRY": "localhost:5000", "DOCKER_REPO": "a/b", "VERSION": "7"}, "localhost:5000/a/b/luminate:7"),
    ],
)
def test_the_image_is_the_one_that_was_pushed(tree, cluster, env, image):
    tree.make("k8s-deploy", OVERLAY="standalone", **env)
    (container,) = cluster.get("StatefulSet", "luminate")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


def test_another_repository_is_not_deployed_because_a_variable_was_forgotten(tree, cluster):
    tree.make("k8s-deploy", OVERLAY="standalone", DOCKER_REPO="yourusername", VERSION="2")
    tree.refused("docker.io/yourusername/luminate:2 runs", "docker.io/luminate/luminate:0.1.0", "DOCKER_REPO", OVERLAY="standalone")
    tree.make("k8s-deploy", OVERLAY="standalone", DOCKER_REPO="yourusername", VERSION="3")
    tree.make("k8s-deploy", OVERLAY="standalone", DOCKER_REGISTRY="docker.io")
    (container,) = cluster.get("StatefulSet", "luminate")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "docker.io/luminate/luminate:0.1.0"


def test_an_older_version_is_not_deployed_because_a_variable_was_forgotten(tree):
    tree.make("k8s-deploy", OVERLAY="standalone", VERSION="0.10.0")
    tree.refused("docker.io/luminate/luminate:0.10.0 runs", "VERSION=0.10.0; or VERSION=0.1.0", OVERLAY="standalone")
    done = tree.make("k8s-deploy", OVERLAY="standalone", VERSION="0.0.9")
    assert "The image changes from docker.io/luminate/luminate:0.10.0 to docker.io/luminate/luminate:0.0.9" in done.stdout
    # What is newer comes with the manifests.
    tree.make("k8s-deploy", OVERLAY="standalone")


def test_pods_are_replaced_when_what_they_read_at_their_start_changes(tree, cluster):
    def pods():
        return {name for _, name in cluster.all("Pod") if "redis" not in name}, {name for _, name in cluster.all("Pod") if "redis" in name}

    config = tree.kubernetes / "configmap.yaml"
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD="first-password")
    gateways, redis = pods()
    config.write_text(config.read_text().replace("overrides: {}", 'overrides: {"*": {max_query_range: 90d}}'))
    tree.make("k8s-deploy")
    assert "90d" in cluster.get("ConfigMap", "luminate-config")["data"]["overrides.yaml"]
    assert pods() == (gateways, redis), "overrides are read again without a restart"

    config.write_text(config.read_text().replace("clickhouse:8123", "other:8123"))
    tree.make("k8s-deploy")
    assert not pods()[0] & gateways and pods()[1] == redis
    gateways, _ = pods()

    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD="second-password")
    assert tree.secrets()["clickhouse-password"] == "second-password"
    assert not pods()[0] & gateways and pods()[1] == redis

    document = yaml.safe_load((tree.kubernetes / "secret.yaml").read_text())
    document["stringData"] = {"redis-password": "another-for-redis"}
    (tree.kubernetes / "secret.yaml").write_text(yaml.safe_dump(document))
    tree.make("k8s-deploy")
    assert not pods()[1] & redis


def test_pods_that_do_not_start_are_told_about(tmp_path):
    with ApiServer(broken={"luminate:9.9.9": "ImagePullBackOff"}) as cluster:
        tree = Tree(tmp_path, cluster)
        done = tree.make("k8s-deploy", check=False, OVERLAY="standalone", VERSION="9.9.9", ROLLOUT_TIMEOUT="1s")
        assert done.returncode != 0
        assert "ImagePullBackOff" in done.stderr and "make k8s-logs" in done.stderr
        # And again with one that can be pulled.
        tree.make("k8s-deploy", OVERLAY="standalone", VERSION="9.9.8")


def test_pods_are_not_waited_for_where_no_controller_makes_them(tmp_path):
    with ApiServer(alone=True) as cluster:
        done = Tree(tmp_path, cluster).make("k8s-deploy", OVERLAY="standalone")
        assert "no controller of the cluster has looked at statefulset/luminate" in done.stdout
        assert "secret/luminate-secrets created" in done.stdout and "Luminate is deployed" in done.stdout


def test_a_load_balancer_stays_one(tree, cluster):
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    # As the guide says.
    run(tree.env["KUBECTL"], "--kubeconfig", tree.env["KUBECONFIG"], "patch", "svc", "luminate-svc", "-n", "luminate", "-p", '{"spec":{"type":"LoadBalancer"}}')
    tree.make("k8s-deploy")
    assert cluster.get("Service", "luminate-svc")["spec"]["type"] == "LoadBalancer"


# ---- Secrets


def test_strong_secrets_are_drawn_where_there_are_none(tree, cluster, tmp_path):
    # What is among the arguments of kubectl can be read by everybody on the machine.
    spy = tmp_path / "kubectl"
    spy.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/arguments\nenv >>{tmp_path}/environment\nexec {program("kubectl")} "$@"\n')
    spy.chmod(0o755)
    done = tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD, KUBECTL=str(spy))
    assert "jwt-secret was drawn" in done.stdout and "redis-password was drawn" in done.stdout
    drawn = tree.secrets()
    assert drawn.keys() == {"jwt-secret", "redis-password", "clickhouse-password"}
    assert drawn["clickhouse-password"] == PASSWORD
    assert len(base64.b64decode(drawn["jwt-secret"])) == 48 and len(base64.b64decode(drawn["redis-password"])) == 48
    assert len(set(drawn.values())) == 3
    said = done.stdout + done.stderr + (tmp_path / "arguments").read_text() + (tmp_path / "environment").read_text()
    for value in [*drawn.values(), *cluster.get("Secret", "luminate-secrets")["data"].values()]:
        assert value not in said
        assert not any(value in body for _, path, body in cluster.requests if "/secrets" not in path)
    assert not any("your-" in body for _, path, body in cluster.requests if "/ingresses" not in path)

    # They are kept from then on, and what one deployment has another has not.
    assert "unchanged" in tree.make("k8s-deploy").stdout
    assert tree.secrets() == drawn
    tree.make("k8s-delete", CONFIRM="yes", DELETE_DATA="yes")
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert tree.secrets()["jwt-secret"] != drawn["jwt-secret"]


def test_secrets_that_cannot_be_read_for_now_are_not_drawn_again(tree, cluster, tmp_path):
    tree.make("k8s-deploy", OVERLAY="standalone")
    before = tree.secrets()
    # Says that there is a Secret, and then fails.
    broken = tmp_path / "kubectl"
    broken.write_text(f'#!/bin/sh\ncase "$*" in *"get secret "*go-template*) exit 1 ;; esac\nexec {program("kubectl")} "$@"\n')
    broken.chmod(0o755)
    tree.refused("cannot read the Secret luminate-secrets", OVERLAY="standalone", KUBECTL=str(broken))
    assert tree.secrets() == before


def test_the_password_of_a_redis_that_is_not_ours_is_not_drawn(tree, cluster):
    overlay = tree.root / "deployments" / "overlays" / "scalable" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("  - redis.yaml\n", ""))
    tree.refused("the Secret luminate-secrets has no redis-password", CLICKHOUSE_PASSWORD=PASSWORD)
    document = yaml.safe_load((tree.kubernetes / "secret.yaml").read_text())
    document["stringData"] = {"redis-password": "known-to-redis"}
    (tree.kubernetes / "secret.yaml").write_text(yaml.safe_dump(document))
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert tree.secrets()["redis-password"] == "known-to-redis"
    assert cluster.all() == OBJECTS["scalable"] - REDIS


def test_an_edited_file_is_used(tree):
    tree.secret(jwt_secret=JWT, clickhouse_password=PASSWORD)
    done = tree.make("k8s-deploy")
    assert "jwt-secret was drawn" not in done.stdout and JWT not in done.stdout
    assert tree.secrets() | {"redis-password": ""} == {"jwt-secret": JWT, "clickhouse-password": PASSWORD, "redis-password": ""}

    # What it no longer says stays, and what it says otherwise is changed.
    tree.secret(jwt_secret=None, clickhouse_password="changed")
    before = tree.secrets()
    tree.make("k8s-deploy")
    assert tree.secrets() == before | {"clickhouse-password": "changed"}


def test_a_file_that_is_half_edited_is_refused(tree):
    tree.secret(clickhouse_password=PASSWORD)
    assert PASSWORD not in tree.refused("secret.yaml", "jwt-secret still has the placeholder")
    # Without the line one is drawn.
    tree.secret(jwt_secret=None)
    assert "jwt-secret was drawn" in tree.make("k8s-deploy").stdout


def test_a_password_of_clickhouse_is_told_to_be_missing_and_may_come_later(tree):
    done = tree.make("k8s-deploy")
    assert "nobody said a password for ClickHouse" in done.stdout and "CLICKHOUSE_PASSWORD" in done.stdout
    first = tree.secrets()
    assert first["clickhouse-password"] == "" and len(first["jwt-secret"]) >= 32
    # It is told each time, and changes nothing.
    assert "nobody said a password" in tree.make("k8s-deploy").stdout and tree.secrets() == first
    done = tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert "nobody said" not in done.stdout
    assert tree.secrets() == first | {"clickhouse-password": PASSWORD}
    assert "nobody said" not in tree.make("k8s-deploy").stdout


def test_a_password_of_clickhouse_is_said_in_one_place(tree):
    tree.secret(jwt_secret=JWT)
    tree.refused("secret.yaml", "clickhouse-password still has the placeholder")
    tree.secret(clickhouse_password="one")
    tree.refused("another clickhouse-password", CLICKHOUSE_PASSWORD="other")
    tree.secret(clickhouse_password=None)
    tree.make("k8s-deploy", OVERLAY="standalone")
    assert tree.secrets() == {"jwt-secret": JWT}


@pytest.mark.parametrize(
    "secret, words",
    [
        ("short", ["jwt-secret has 5 bytes", "32"]),
        ("", ["jwt-secret is empty"]),
        ("your-strong-secret-here-which-is-long-enough", ["jwt-secret is a placeholder"]),
    ],
)
def test_a_weak_secret_is_refused(tree, secret, words):
    tree.secret(jwt_secret=secret)
    said = tree.refused("secret.yaml", *words, OVERLAY="standalone")
    assert not secret or secret not in said


@pytest.mark.parametrize("password", ['a"b', "a\\b", "a\nb"])
def test_a_password_that_redis_would_read_otherwise_is_refused(tree, password):
    document = yaml.safe_load((tree.kubernetes / "secret.yaml").read_text())
    document["stringData"] = {"jwt-secret": JWT, "clickhouse-password": PASSWORD, "redis-password": password}
    (tree.kubernetes / "secret.yaml").write_text(yaml.safe_dump(document))
    tree.refused("secret.yaml: redis-password has a quote, a backslash or a line break")


def test_a_file_without_the_secret_is_refused(tree):
    (tree.kubernetes / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: other}\nstringData: {a: b}\n")
    tree.refused("secret.yaml has no Secret luminate-secrets")


def test_placeholders_that_got_into_the_cluster_are_replaced(tree):
    kubectl = [tree.env["KUBECTL"], "--kubeconfig", tree.env["KUBECONFIG"]]
    run(*kubectl, "apply", "-f", tree.kubernetes / "namespace.yaml", "-f", tree.kubernetes / "secret.yaml")
    done = tree.make("k8s-deploy")
    assert "jwt-secret was drawn" in done.stdout and "nobody said a password" in done.stdout
    assert tree.secrets()["clickhouse-password"] == "" and not any("your-" in value for value in tree.secrets().values())


# ---- What cannot be done


def test_what_is_missing_is_said(tree, cluster, tmp_path):
    tree.refused("there is no overlay \"scalabel\"", "scalable", "standalone", OVERLAY="scalabel")
    tree.refused("there is no /nowhere/kubectl", KUBECTL="/nowhere/kubectl")
    tree.refused("cannot be part of an image's name", VERSION="1\nnewName: evil")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = yaml.safe_load(Path(tree.env["KUBECONFIG"]).read_text())
        dead["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "dead").write_text(yaml.safe_dump(dead))
        for target in ("k8s-deploy", "k8s-status", "k8s-logs", "k8s-delete"):
            done = tree.make(target, check=False, KUBECONFIG=str(tmp_path / "dead"))
            assert done.returncode != 0 and "no cluster answers" in done.stderr, done.stderr
    for target in ("k8s-status", "k8s-logs", "k8s-delete"):
        done = tree.make(target, check=False)
        assert done.returncode != 0 and "nothing is deployed" in done.stderr, done.stderr


def test_one_deployment_does_not_go_over_the_other(tree):
    tree.make("k8s-deploy", OVERLAY="standalone")
    tree.refused("the other deployment is there: statefulset/luminate", "k8s-delete", CLICKHOUSE_PASSWORD=PASSWORD)
    before = tree.secrets()
    tree.make("k8s-delete", CONFIRM="yes")
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert tree.secrets()["jwt-secret"] == before["jwt-secret"]
    tree.refused("the other deployment is there: deployment/luminate", OVERLAY="standalone")


def test_what_helm_deployed_is_left_to_helm(tree, cluster):
    chart = [program("helm"), "--kubeconfig", tree.env["KUBECONFIG"]]
    run(*chart, "install", "luminate", CHART, "-n", "luminate", "--create-namespace", "--set", "mode=standalone")
    before = cluster.all()
    tree.refused("Helm deployed what is there: statefulset.apps/luminate", OVERLAY="standalone")
    done = tree.make("k8s-delete", check=False, CONFIRM="yes", DELETE_DATA="yes")
    assert done.returncode != 0 and "Helm deployed what is there" in done.stderr
    assert cluster.all() == before


# ---- Looking, and deleting


def test_status_and_logs_show_all_pods(tree, cluster):
    done = tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    assert "token create" in done.stdout and "luminate.yourdomain.com" in done.stdout
    status = tree.make("k8s-status").stdout
    assert len(re.findall(r"^pod/luminate-\w+-\w+ +1/1 +Running +0 ", status, re.M)) == 3
    assert re.search(r"luminate-hpa +Deployment/luminate +\S.*/70%.*/80% +3 +10 +3 ", status)
    assert re.search(r"service/luminate-svc +ClusterIP +\S+ +\S+ +8080/TCP ", status)
    logs = tree.make("k8s-logs").stdout
    for _, pod in cluster.all("Pod"):
        assert (f"[pod/{pod}/luminate] " in logs) == ("redis" not in pod)


def test_deleting_asks_first_and_keeps_disks_and_secrets(tree, cluster):
    tree.make("k8s-deploy", OVERLAY="standalone")
    before = cluster.clock
    done = tree.make("k8s-delete", check=False)
    assert done.returncode != 0 and "CONFIRM=yes" in done.stderr and cluster.clock == before
    tree.make("k8s-delete", CONFIRM="yes")
    assert cluster.all() == {("Namespace", "luminate"), ("Secret", "luminate-secrets")} | DISK
    assert not cluster.all("Pod")
    done = tree.make("k8s-logs", check=False)
    assert done.returncode != 0 and "there are no pods" in done.stderr
    # What is left is used again.
    tree.make("k8s-deploy", OVERLAY="standalone")
    tree.make("k8s-delete", CONFIRM="yes", DELETE_DATA="yes")
    assert not cluster.all()


def test_deleting_the_scalable_deployment_takes_all_of_it(tree, cluster):
    tree.make("k8s-deploy", CLICKHOUSE_PASSWORD=PASSWORD)
    tree.make("k8s-delete", CONFIRM="yes")
    assert cluster.all() == {("Namespace", "luminate"), ("Secret", "luminate-secrets")}


# ---- The binary


def container(folder, rendered, secrets, name="luminate/luminate"):
    """Puts what a container mounts into a folder: its command line and environment, with paths that lead there."""
    secret = yaml.safe_dump({"kind": "Secret", "metadata": {"name": "luminate-secrets"}, "stringData": secrets})
    found, _ = workloads(f"{kustomize(rendered)}---\n{secret}")
    (workload,) = [workload for workload in found if workload.name == name]
    mounts = [*workload.folders, *workload.data]

    def here(text):
        paths = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
        return re.sub(paths, lambda found: f"{folder}{found[0]}", text)

    for path in mounts:
        Path(here(path)).mkdir(parents=True)
    for path, files in workload.folders.items():
        for file, text in files.items():
            (Path(here(path)) / file).write_text(here(text))
    return [here(word) for word in [*(workload.command or []), *workload.args]], {key: here(value) for key, value in workload.env.items()}


GOOD = {"jwt-secret": JWT, "clickhouse-password": PASSWORD, "redis-password": "another-for-redis"}


@pytest.mark.parametrize("folder", [".", "overlays/scalable", "overlays/standalone"])
def test_the_configuration_is_one_the_binary_takes(tmp_path, folder):
    (serve, flag), env = container(tmp_path, folder, GOOD)
    assert serve == "serve"
    assert "is valid" in run(luminate(), "check", "config", flag, env=env).stdout
    # Unknown keys would not be.
    config = Path(flag.partition("=")[2])
    config.write_text(config.read_text().replace("admin_open: true", "admin_opne: true"))
    done = run(luminate(), "check", "config", flag, env=env, check=False)
    assert done.returncode != 0 and "admin_opne" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "folder, key, said",
    [
        ("overlays/standalone", "jwt-secret", "it takes at least 32"),
        ("overlays/scalable", "jwt-secret", "it takes at least 32"),
        ("overlays/scalable", "clickhouse-password", "is a placeholder"),
    ],
)
def test_the_binary_refuses_to_start_with_placeholders(tmp_path, folder, key, said):
    """What the file has as it comes, put into the cluster past `make k8s-deploy`."""
    (secret,) = documents((KUBERNETES / "secret.yaml").read_text())
    assert secret["stringData"].keys() == {"jwt-secret", "clickhouse-password"}
    (serve, flag), env = container(tmp_path, folder, GOOD | {key: secret["stringData"][key]})
    done = run(luminate(), serve, flag, env=env, check=False, timeout=60)
    assert done.returncode != 0
    assert key in done.stderr and said in done.stderr


def test_a_token_is_made_as_the_last_words_of_a_deployment_say(tmp_path):
    (_, flag), env = container(tmp_path, "overlays/standalone", GOOD)
    done = run(luminate(), "token", "create", flag, "--tenant", "team-a", "--scope", "write,read", env=env)
    assert done.stdout.count(".") == 2
    done = run(luminate(), "token", "create", "--secret-file", "/dev/stdin", "--tenant", "team-a", "--scope", "write,read", input=JWT)
    assert done.stdout.count(".") == 2


def test_redis_starts_as_it_is_deployed_and_wants_its_password(tmp_path):
    server, cli = program("redis-server"), program("redis-cli")
    command, _ = container(tmp_path, "overlays/scalable", GOOD, name="luminate-redis/redis")
    assert sorted(path.name for path in (tmp_path / "etc/luminate-secrets").iterdir()) == ["redis-password"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    config = tmp_path / "etc/luminate-redis/redis.conf"
    config.write_text(config.read_text().replace("port 6379", f"port {port}"))
    process = subprocess.Popen(command, cwd=tmp_path, env={"PATH": f"{Path(server).parent}:/usr/bin:/bin"}, stdout=subprocess.DEVNULL)
    try:

        def ask(*words, password=GOOD["redis-password"]):
            env = {"REDISCLI_AUTH": password} if password else {}
            return run(cli, "-p", port, *words, check=False, env=env).stdout.split()

        for _ in range(600):
            if ask("ping") == ["PONG"] or process.poll() is not None:
                break
            time.sleep(0.1)
        assert ask("ping") == ["PONG"]
        assert ask("ping", password=None)[0] == "NOAUTH"
        assert ask("config", "get", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
        assert ask("config", "get", "maxmemory") == ["maxmemory", str(192 * 2**20)]
        assert ask("config", "get", "save") == ["save"]
        # The password is not among the arguments.
        assert GOOD["redis-password"] not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    # Nothing was written.
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["redis-password", "redis.conf"]


def test_redis_does_not_start_without_a_password(tmp_path):
    program("redis-server")
    command, _ = container(tmp_path, "overlays/scalable", GOOD | {"redis-password": ""}, name="luminate-redis/redis")
    assert run(*command, check=False, timeout=60).returncode != 0
    (tmp_path / "etc/luminate-secrets" / "redis-password").unlink()
    assert run(*command, check=False, timeout=60).returncode != 0


def test_what_kubectl_sends_is_checked(tree, cluster):
    """An object with a mistake in it does not get past `make k8s-deploy`, and is named."""
    service = tree.kubernetes / "service.yaml"
    service.write_text(service.read_text().replace("ports:", "portz:"))
    done = tree.make("k8s-deploy", check=False, OVERLAY="standalone")
    assert done.returncode != 0 and "luminate-svc" in done.stderr and "portz" in done.stderr


