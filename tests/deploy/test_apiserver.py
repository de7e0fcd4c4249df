"""The stand-in for a cluster does what Kubernetes does, where the tests rest on it."""

import copy
import json
import threading
import urllib.request

import pytest

from apiserver import RESOURCES, ApiServer, Cluster, Refused, json_patch, merge, selects
from house import KUBERNETES, documents, kustomize, program, run

KINDS = {resource.kind: resource for resource in RESOURCES}
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def rendered():
    objects = documents(kustomize("overlays/scalable")) + documents(kustomize("overlays/standalone"))
    return {f"{d['kind']} {d['metadata']['name']}": d for d in objects}


@pytest.fixture
def cluster(rendered):
    made = Cluster("1.35")
    made.changed.acquire()
    made.create(KINDS["Namespace"], "", copy.deepcopy(rendered["Namespace luminate"]))
    yield made
    made.changed.release()


def create(cluster, document, namespace="luminate"):
    return cluster.create(KINDS[document["kind"]], namespace, copy.deepcopy(document))


def patch(cluster, document, how, change):
    return cluster.patch(KINDS[document["kind"]], "luminate", document["metadata"]["name"], how, change)


def refuses(code, said, act, *arguments):
    with pytest.raises(Refused) as refused:
        act(*arguments)
    assert refused.value.code == code and said in str(refused.value), refused.value


def test_what_is_wrong_is_refused(cluster, rendered):
    deployment = rendered["Deployment luminate"]
    for field, value, said in [
        ("replicaz", 3, "replicaz"),
        ("minReadySeconds", "soon", "minReadySeconds"),
        ("template", {}, "spec"),
    ]:
        refuses(422, said, create, cluster, {**deployment, "spec": {**deployment["spec"], field: value}})
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["name"] = "nowhere"
    refuses(422, "nowhere", create, cluster, wrong)
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    refuses(422, "less than or equal to cpu limit", create, cluster, wrong)
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/component")
    refuses(422, "does not match template", create, cluster, wrong)
    wrong = copy.deepcopy(rendered["HorizontalPodAutoscaler luminate-hpa"])
    wrong["spec"]["minReplicas"] = 11
    refuses(422, "maxReplicas", create, cluster, wrong)
    refuses(422, "metadata.name", create, cluster, {**deployment, "metadata": {"name": "Not_A_Name"}})
    refuses(400, "namespace", create, cluster, {**deployment, "metadata": {"name": "luminate", "namespace": "other"}})


def test_a_namespace_has_to_be_there(cluster, rendered):
    refuses(404, 'namespaces "other" not found', create, cluster, {**rendered["Service luminate-svc"], "metadata": {"name": "a"}}, "other")


def test_what_cannot_change_does_not(cluster, rendered):
    deployment, stateful = rendered["Deployment luminate"], rendered["StatefulSet luminate"]
    create(cluster, deployment)
    refuses(409, "already exists", create, cluster, deployment)
    labels = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}}
    refuses(422, "immutable", patch, cluster, deployment, MERGE, labels)
    create(cluster, stateful)
    for change in ({"serviceName": "a"}, {"podManagementPolicy": "OrderedReady"}):
        refuses(422, "Forbidden", patch, cluster, stateful, MERGE, {"spec": change})
    patch(cluster, stateful, MERGE, {"spec": {"revisionHistoryLimit": 3}})
    create(cluster, rendered["Service luminate-svc"])
    refuses(422, "immutable", patch, cluster, rendered["Service luminate-svc"], MERGE, {"spec": {"clusterIP": "10.0.0.1"}})
    refuses(409, "modified", patch, cluster, deployment, MERGE, {"metadata": {"resourceVersion": "1"}})
    refuses(404, "not found", patch, cluster, rendered["PodDisruptionBudget luminate"], MERGE, {})


def test_lists_are_merged_by_what_tells_their_elements_apart(cluster, rendered):
    deployment = rendered["Deployment luminate"]
    before = create(cluster, deployment)["spec"]["template"]["spec"]["containers"][0]

    def change(container):
        container = {"name": "luminate", **container}
        new = patch(cluster, deployment, STRATEGIC, {"spec": {"template": {"spec": {"containers": [container]}}}})
        return new["spec"]["template"]["spec"]["containers"][0]

    assert change({"image": "a:1"}) == before | {"image": "a:1"}
    names = [variable["name"] for variable in before["env"]]
    assert [v["name"] for v in change({"env": [{"name": "A", "value": "1"}]})["env"]] == [*names, "A"]
    order = [{"name": name} for name in ["A", *names]]
    assert [v["name"] for v in change({"$setElementOrder/env": order})["env"]] == ["A", *names]
    assert [v["name"] for v in change({"env": [{"name": "A", "$patch": "delete"}]})["env"]] == names
    assert change({"args": ["serve"]})["args"] == ["serve"], "lists without a key are replaced"
    assert change({"livenessProbe": {"$patch": "replace", "tcpSocket": {"port": 1}}})["livenessProbe"] == {"tcpSocket": {"port": 1}}
    new = patch(cluster, deployment, STRATEGIC, {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
    assert new["spec"]["strategy"] == {"type": "Recreate"}


def test_other_patches_are_what_their_rfcs_say():
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": 3}, "d": [2]}) == {"a": {"c": 2, "e": 3}, "d": [2]}
    operations = [
        {"op": "test", "path": "/a/b~1c", "value": 1},
        {"op": "replace", "path": "/a/b~1c", "value": 2},
        {"op": "add", "path": "/d/-", "value": 3},
        {"op": "add", "path": "/d/0", "value": 0},
        {"op": "remove", "path": "/e"},
    ]
    assert json_patch({"a": {"b/c": 1}, "d": [1], "e": 1}, operations) == {"a": {"b/c": 2}, "d": [0, 1, 3]}
    refuses(422, "test", json_patch, {"a": 1}, [{"op": "test", "path": "/a", "value": 2}])


def test_selectors_are_understood():
    labels = {"a": "1", "b": "2"}
    for selector in ("", "a=1", "a==1,b=2", "a!=2", "a in (1,2),b", "c notin (1)", "!c", "a in (0, 1)"):
        assert selects(selector, labels), selector
    for selector in ("a=2", "c", "!a", "a notin (1)", "a in (2,3)", "a=1,b=1"):
        assert not selects(selector, labels), selector


def test_pods_are_what_their_owner_asks_for(cluster, rendered):
    deployment = rendered["Deployment luminate"]
    create(cluster, deployment)
    assert cluster.get("Deployment", "luminate")["spec"]["replicas"] == 1, "one, unless it is said"
    (old,) = cluster.all("Pod")
    assert cluster.get(*old)["status"]["phase"] == "Pending", "what it mounts is not there"
    create(cluster, rendered["ConfigMap luminate-config"])
    create(cluster, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "luminate-secrets"}, "stringData": {"jwt-secret": "x"}})
    assert cluster.get("Secret", "luminate-secrets")["data"] == {"jwt-secret": "eA=="}
    assert cluster.get(*old)["status"]["phase"] == "Running"
    assert cluster.get("Deployment", "luminate")["status"]["availableReplicas"] == 1
    patch(cluster, deployment, MERGE, {"spec": {"replicas": 3}})
    assert len(cluster.all("Pod")) == 3 and old in cluster.all("Pod")
    patch(cluster, deployment, MERGE, {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    assert len(cluster.all("Pod")) == 3 and old not in cluster.all("Pod")
    # Which is why a number that is not to be reset is never applied in the first place.
    patch(cluster, deployment, MERGE, {"spec": {"replicas": None}})
    assert len(cluster.all("Pod")) == 1
    cluster.delete(KINDS["Deployment"], "luminate", "luminate")
    assert not cluster.all("Pod")


def test_a_disk_outlives_its_pod_but_not_its_namespace(cluster, rendered):
    create(cluster, rendered["StatefulSet luminate"])
    assert cluster.all("Pod", "PersistentVolumeClaim") == {("Pod", "luminate-0"), ("PersistentVolumeClaim", "data-luminate-0")}
    cluster.delete(KINDS["StatefulSet"], "luminate", "luminate")
    assert cluster.all("Pod", "PersistentVolumeClaim") == {("PersistentVolumeClaim", "data-luminate-0")}
    cluster.delete(KINDS["Namespace"], "", "luminate")
    assert not cluster.all()


def test_what_changes_nothing_is_no_change(cluster, rendered):
    for document in rendered.values():
        if document["kind"] != "Namespace" and not cluster.get(document["kind"], document["metadata"]["name"]):
            create(cluster, document)
            before = cluster.clock
            patch(cluster, document, MERGE, copy.deepcopy(document))
            assert cluster.clock == before


def test_it_is_watched_and_hung_up_on(tmp_path):
    with ApiServer() as server:
        base = f"http://127.0.0.1:{server.server_address[1]}/api/v1/namespaces"
        begun, seen = threading.Event(), []

        def watch():
            with urllib.request.urlopen(f"{base}?watch=true&fieldSelector=metadata.name=luminate", timeout=30) as answer:
                begun.set()
                for line in answer:
                    seen.append(json.loads(line))
                    if seen[-1]["type"] == "DELETED":
                        return

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert begun.wait(30)
        config = server.kubeconfig(tmp_path / "config")
        kubectl = program("kubectl")
        run(kubectl, "--kubeconfig", config, "apply", "-f", KUBERNETES / "namespace.yaml")
        run(kubectl, "--kubeconfig", config, "delete", "-f", KUBERNETES / "namespace.yaml")
        watcher.join(30)
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [("ADDED", "luminate"), ("DELETED", "luminate")]


def test_kubectl_is_told_what_is_wrong(tmp_path):
    with ApiServer() as server:
        config = server.kubeconfig(tmp_path / "config")

        def apply(text, *arguments):
            return run(program("kubectl"), "--kubeconfig", config, "apply", "-f", "-", *arguments, input=text, check=False).stderr

        service = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}], %s}}"
        assert "portz" in apply(service % "portz: []")
        assert 'namespaces "nowhere" not found' in apply(service % "", "-n", "nowhere")
        assert 'no matches for kind "Widget"' in apply("{apiVersion: v1, kind: Widget, metadata: {name: a}}")
        assert server.all() == set()
        # As the server does it, too, which is Helm's way.
        assert apply(service % "", "--server-side") == ""
        assert server.get("Service", "a", "default")["spec"]["type"] == "ClusterIP"
        assert apply(service % "type: LoadBalancer", "--server-side") == ""
        assert server.get("Service", "a", "default")["spec"]["type"] == "LoadBalancer"
