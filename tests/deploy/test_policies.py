"""What holds for everything that is deployed to Kubernetes, whether by a manifest, an overlay or the chart."""

import copy
import json
import os
import re

import pytest
import yaml

from apiserver import quantity
from house import TOOLS, documents, kustomize, missing, pod_templates, renders, run

# What checkov asks for and an operator decides: a digest in the place of the tag, and to pull images each time.
NOT_ASKED = {"CKV_K8S_43", "CKV_K8S_15"}

HPA = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "luminate"},
    "minReplicas": 3,
    "maxReplicas": 10,
    "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}},
    ],
    "behavior": {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 2, "periodSeconds": 15}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "selectPolicy": "Min",
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}, {"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    },
}
# Values that make everything otherwise, to show that an operator can: objects, containers and doors of their own. Of
# the rules only some hold for what is not ours.
ALL_OTHERWISE = "helm/everything-else.yaml"
# Values that keep secrets in the release, which the chart warns of.
WITH_SECRETS = "helm/secrets.yaml"

CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
# What a pod of the Pod Security Standard "restricted" may mount.
VOLUMES = {"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def at(document, *path, default=None):
    for step in path:
        if not isinstance(document, dict) or step not in document:
            return default
        document = document[step]
    return document


def seconds(text):
    """30 from 30s, as configuration has it."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", str(text)))


def matches(selector, labels):
    """Whether a labelSelector holds for labels."""
    for rule in selector.get("matchExpressions", []):
        there = labels.get(rule["key"]) in rule.get("values", []) if rule["operator"] in ("In", "NotIn") else rule["key"] in labels
        if there != (rule["operator"] in ("In", "Exists")):
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class Deployed:
    """A render, and what in it is not as it has to be: each rule yields sentences."""

    def __init__(self, objects, name=""):
        self.objects = objects
        self.name = name
        self.workloads = self.of("Deployment", "StatefulSet")
        self.templates = [(document, template) for document in objects for template in pod_templates(document)]
        self.configs = [
            yaml.safe_load(text)
            for document in self.of("ConfigMap")
            for name, text in (document.get("data") or {}).items()
            if name == "luminate.yaml"
        ]

    def of(self, *kinds):
        return [document for document in self.objects if document["kind"] in kinds]

    def faults(self):
        rules = [self.selectors, self.pods, self.images, self.secrets, self.draining, self.memory]
        if self.name != ALL_OTHERWISE:
            rules += [self.names, self.containers, self.updates, self.service]
        for rule in rules:
            for fault in rule():
                yield fault

    def names(self):
        for document in self.objects:
            metadata = document["metadata"]
            if document["kind"] not in CLUSTER_WIDE and metadata.get("namespace") != "luminate":
                yield f"{document['kind']} {metadata['name']} is in no namespace"
            if "app.kubernetes.io/name" not in metadata.get("labels", {}):
                yield f"{document['kind']} {metadata['name']} has no label that says whose it is"

    def selectors(self):
        pods = [(template["metadata"].get("labels", {}), template["spec"]) for _, template in self.templates]

        def ports(selector):
            """What pods that are selected listen on, by name and number; None if there are no such pods."""
            selected = [spec for labels, spec in pods if matches(selector, labels)]
            if selected:
                return {p.get(by) for spec in selected for c in spec["containers"] for p in c.get("ports", []) for by in ("name", "containerPort")}
            return None

        def check(what, selector, wanted=()):
            if any("version" in key or "chart" in key for key in [*selector.get("matchLabels", {}), *[r["key"] for r in selector.get("matchExpressions", [])]]):
                yield f"{what} selects by a version, which changes"
            found = ports(selector)
            if found is None:
                yield f"{what} selects no pods"
            for port in wanted:
                if found is not None and port not in found:
                    yield f"{what} leads to a port {port} that its pods have not"

        for document in self.objects:
            what = f"{document['kind']} {document['metadata']['name']}"
            spec = document.get("spec", {})
            match document["kind"]:
                case "Service":
                    wanted = [port.get("targetPort", port["port"]) for port in spec["ports"]]
                    yield from check(what, {"matchLabels": spec["selector"]}, wanted)
                case "PodDisruptionBudget" | "Deployment" | "StatefulSet" | "DaemonSet":
                    yield from check(what, spec["selector"])
                case "PodMonitor":
                    yield from check(what, spec["selector"], [e["port"] for e in spec["podMetricsEndpoints"]])
                case "ServiceMonitor":
                    services = [s for s in self.of("Service") if matches(spec["selector"], s["metadata"].get("labels", {}))]
                    names = {port["name"] for service in services for port in service["spec"]["ports"]}
                    if any("version" in key or "chart" in key for key in spec["selector"].get("matchLabels", {})):
                        yield f"{what} selects by a version, which changes"
                    names |= {p for s in services for p in ports({"matchLabels": s["spec"]["selector"]}) or ()}
                    for endpoint in spec["endpoints"]:
                        port = endpoint.get("port") or endpoint.get("targetPort")
                        if port not in names:
                            yield f"{what} scrapes a port {port} that nothing has that it selects"
                case "HorizontalPodAutoscaler" | "ScaledObject":
                    target = spec["scaleTargetRef"]
                    found = [d for d in self.of(target.get("kind", "Deployment")) if d["metadata"]["name"] == target["name"]]
                    if not found:
                        yield f"{what} scales what is not there"
                    for workload in found:
                        if "replicas" in workload["spec"]:
                            yield f"{what} and its target both say how many pods there are"
                case "NetworkPolicy":
                    if spec["podSelector"]:
                        yield from check(what, spec["podSelector"], [p["port"] for rule in spec.get("ingress", []) for p in rule.get("ports", [])])
                    for rule in spec.get("ingress", []) + spec.get("egress", []):
                        for peer in rule.get("from", []) + rule.get("to", []):
                            ours = "app.kubernetes.io/name" in at(peer, "podSelector", "matchLabels", default={})
                            if ours and "namespaceSelector" not in peer:
                                wanted = [p["port"] for p in rule.get("ports", [])] if "to" in rule else []
                                yield from check(f"{what}: a rule", peer["podSelector"], wanted)
                case "Ingress":
                    services = {s["metadata"]["name"]: {p["name"] for p in s["spec"]["ports"]} | {p["port"] for p in s["spec"]["ports"]} for s in self.of("Service")}
                    for rule in spec["rules"]:
                        for path in rule["http"]["paths"]:
                            backend = path["backend"]["service"]
                            port = backend["port"].get("name") or backend["port"].get("number")
                            if port not in services.get(backend["name"], ()):
                                yield f"{what} leads to {backend['name']}:{port}, which is not there"
                    if not spec.get("tls"):
                        yield f"{what} has no TLS"
        for document, template in self.templates:
            what = f"{document['kind']} {document['metadata']['name']}"
            labels = template["metadata"].get("labels", {})
            spec = template["spec"]
            terms = at(spec, "affinity", "podAntiAffinity", default={})
            near = [term["podAffinityTerm"] for term in terms.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
            near += terms.get("requiredDuringSchedulingIgnoredDuringExecution", []) + spec.get("topologySpreadConstraints", [])
            for term in near:
                if not matches(term["labelSelector"], labels):
                    yield f"{what} keeps away from other pods than its own"
            if document["kind"] == "Deployment" and document["metadata"]["name"] == "luminate":
                if not terms or not spec.get("topologySpreadConstraints"):
                    yield f"{what} is not spread over nodes and zones"
            covered = [p for p in self.of("NetworkPolicy") if matches(p["spec"]["podSelector"], labels)]
            if self.of("NetworkPolicy") and {kind for p in covered for kind in p["spec"]["policyTypes"]} != {"Ingress", "Egress"}:
                yield f"{what} is not behind a network policy for both ways"

    def pods(self):
        """The Pod Security Standard "restricted", and who may talk to Kubernetes: nobody."""
        for document, template in self.templates:
            what = f"{document['kind']} {document['metadata']['name']}"
            spec = template["spec"]
            context = spec.get("securityContext", {})
            if spec.get("automountServiceAccountToken") is not False:
                yield f"{what} mounts a token for Kubernetes"
            if spec.get("enableServiceLinks") is not False:
                yield f"{what} has variables of Services, which would be taken for configuration"
            if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) < 10000:
                yield f"{what} may run as root, or as somebody of the node"
            if at(context, "seccompProfile", "type") != "RuntimeDefault":
                yield f"{what} has no seccomp profile"
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(field):
                    yield f"{what} has {field}"
            for volume in spec.get("volumes", []):
                if not set(volume) <= VOLUMES:
                    yield f"{what} mounts {volume}"
        for account in self.of("ServiceAccount"):
            if account.get("automountServiceAccountToken") is not False:
                yield f"ServiceAccount {account['metadata']['name']} hands out tokens"

    def containers(self):
        for document, template in self.templates:
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                what = f"{document['kind']} {document['metadata']['name']}: {container['name']}"
                context = container.get("securityContext", {})
                if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                    yield f"{what} may become privileged"
                if context.get("readOnlyRootFilesystem") is not True:
                    yield f"{what} may write to its image"
                if at(context, "capabilities", "drop") != ["ALL"] or at(context, "capabilities", "add"):
                    yield f"{what} has capabilities"
                if any("hostPort" in port for port in container.get("ports", [])):
                    yield f"{what} takes a port of the node"
                for kind in ("requests", "limits"):
                    if not {"cpu", "memory"} <= set(at(container, "resources", kind, default={})):
                        yield f"{what} has no {kind} for cpu and memory"
                if document in self.workloads and container in template["spec"]["containers"]:
                    # What ends by itself when it fails needs nobody to look whether it lives.
                    serves = document["metadata"]["labels"].get("app.kubernetes.io/component") != "canary"
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe") if serves else ("readinessProbe",):
                        if probe not in container:
                            yield f"{what} has no {probe}"
                    path = at(container, "livenessProbe", "httpGet", "path")
                    if container["name"] == "luminate" and path != "/health/live":
                        yield f"{what} is restarted by {path}, which may look at a store"

    def images(self):
        for document, template in self.templates:
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                if not re.search(r":[^/:@]+(@sha256:[0-9a-f]{64})?$|@sha256:[0-9a-f]{64}$", container["image"]) or ":latest" in container["image"]:
                    yield f"{document['kind']} {document['metadata']['name']}: the image {container['image']} is no certain one"

    def secrets(self):
        for document, template in self.templates:
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                for variable in container.get("env", []):
                    secret = re.search(r"(PASSWORD|SECRET|TOKEN|CREDENTIAL)S?$", variable["name"])
                    if secret and variable.get("value"):
                        yield f"{document['metadata']['name']}: {variable['name']} is there to be read"
        for document in self.of("Secret") if self.name != WITH_SECRETS else ():
            yield f"Secret {document['metadata']['name']} would go over the one that is there"
        # Where a manifest cannot hold one by mistake: in what is read by everybody who may see pods.
        readable = yaml.safe_dump_all([d for d in self.objects if d["kind"] != "Secret"])
        for url in re.findall(r"\w+://[^\s/:@]*:[^\s/@{$]+@", readable):
            yield f"a password is in {url}"

        def walk(value, path=""):
            if isinstance(value, dict):
                for key, below in value.items():
                    yield from walk(below, f"{path}.{key}")
            elif value and re.search(r"\.(password|secret)$", path):
                yield f"luminate.yaml has {path[1:]}"

        for config in self.configs:
            yield from walk(config)

    def draining(self):
        """A pod that ends waits until nobody asks it any more, then answers whoever did, all within its time."""
        for document in self.workloads:
            for container in document["spec"]["template"]["spec"]["containers"]:
                if container["name"] != "luminate":
                    continue
                what = f"{document['kind']} {document['metadata']['name']}"
                command = at(container, "lifecycle", "preStop", "exec", "command", default=[])
                if command[:2] != ["/usr/local/bin/luminate", "sleep"]:
                    yield f"{what} does not wait for load balancers"
                    continue
                for config in self.configs:
                    needs = seconds(command[2] + "s" if command[2].isdigit() else command[2]) + 5
                    needs += seconds(at(config, "server", "shutdown", "grace", default="30s"))
                    needs += seconds(at(config, "server", "shutdown", "delay", default="0s"))
                    has = document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                    if needs > has:
                        yield f"{what} needs {needs:g} s to end and has {has}"

    def memory(self):
        """A query that holds all it may, 16 bytes a sample, leaves its pod most of the memory."""
        for document in self.workloads:
            for container in document["spec"]["template"]["spec"]["containers"]:
                for config in self.configs if container["name"] == "luminate" else ():
                    takes = 16 * at(config, "query", "max_samples", default=50_000_000)
                    has = quantity(at(container, "resources", "limits", "memory", default="0"))
                    if takes > has / 4:
                        yield f"Of {document['kind']} {document['metadata']['name']} a query may take {takes / 2**20:.0f} of {has / 2**20:.0f} MiB"

    def updates(self):
        for document in self.of("Deployment"):
            strategy = document["spec"].get("strategy")
            if document["metadata"]["name"] == "luminate":
                if strategy != {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}:
                    yield f"Deployment luminate is updated by {strategy}"

    def service(self):
        found = [s for s in self.of("Service") if s["metadata"]["name"] == "luminate-svc"]
        if len(found) != 1:
            yield f"there are {len(found)} Services luminate-svc"
        for service in found:
            if [(p["name"], p["port"]) for p in service["spec"]["ports"]] != [("http", 8080)]:
                yield f"luminate-svc has other ports than http, 8080: {service['spec']['ports']}"
        for service in self.of("Service"):
            public = service["spec"].get("type", "ClusterIP") != "ClusterIP"
            if public and any(p.get("targetPort") in ("admin", 8081) for p in service["spec"]["ports"]):
                yield f"Service {service['metadata']['name']} shows orders and metrics to the world"


@pytest.fixture(scope="module")
def rendered():
    return {name: documents(text) for name, text in renders()}


def test_everything_that_is_deployed_is_as_it_has_to_be(rendered):
    faults = [f"{name}: {fault}" for name, objects in rendered.items() for fault in Deployed(objects, name).faults()]
    assert not faults, "\n".join(faults)


def test_the_autoscaler_has_the_guides_numbers(rendered):
    found = {name: [d["spec"] for d in objects if d["kind"] == "HorizontalPodAutoscaler"] for name, objects in rendered.items()}
    for name in {"kubernetes", "kubernetes/overlays/scalable", "helm"} & set(found):
        assert found[name] == [HPA], name
    assert found["kubernetes/overlays/standalone"] == []


def test_the_namespace_lets_no_other_pods_in(rendered):
    for name, objects in rendered.items():
        for namespace in (d for d in objects if d["kind"] == "Namespace"):
            labels = namespace["metadata"]["labels"]
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted", name


# Mistakes, each made in what is right: the kind and name of an object, what is done to it, and what is said of it.
def pod(document):
    return document["spec"]["template"]["spec"]


def the(document):
    return pod(document)["containers"][0]


MISTAKES = [
    ("Service luminate-svc", lambda d: d["metadata"].pop("namespace"), "is in no namespace"),
    ("Service luminate-svc", lambda d: d["spec"]["selector"].update({"app.kubernetes.io/component": "x"}), "selects no pods"),
    ("Service luminate-svc", lambda d: d["spec"]["ports"][0].update(targetPort="web"), "a port web that its pods have not"),
    ("Service luminate-svc", lambda d: d["spec"]["ports"].append({"name": "admin", "port": 8081, "targetPort": "admin"}), "other ports than http"),
    ("Deployment luminate", lambda d: d["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/version": "0.1.0"}), "selects by a version"),
    ("Deployment luminate", lambda d: d["spec"].update(replicas=3), "both say how many pods"),
    ("Deployment luminate", lambda d: pod(d).pop("topologySpreadConstraints"), "is not spread"),
    (
        "Deployment luminate",
        lambda d: pod(d)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update({"app.kubernetes.io/name": "x"}),
        "keeps away from other pods",
    ),
    ("HorizontalPodAutoscaler luminate-hpa", lambda d: d["spec"]["scaleTargetRef"].update(name="x"), "scales what is not there"),
    ("PodDisruptionBudget luminate", lambda d: d["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "x"}), "selects no pods"),
    ("NetworkPolicy luminate", lambda d: d["spec"]["podSelector"]["matchLabels"].update({"app.kubernetes.io/name": "x"}), "selects no pods"),
    ("NetworkPolicy luminate", lambda d: d["spec"]["ingress"][0]["ports"][0].update(port="web"), "a port web that its pods have not"),
    ("NetworkPolicy luminate-to-redis", lambda d: d["spec"]["egress"][0]["ports"][0].update(port=6380), "a port 6380"),
    ("Ingress luminate", lambda d: d["spec"].pop("tls"), "has no TLS"),
    ("Ingress luminate", lambda d: d["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"].update(name="admin"), "which is not there"),
    ("Deployment luminate", lambda d: pod(d).pop("automountServiceAccountToken"), "mounts a token"),
    ("Deployment luminate", lambda d: pod(d).pop("enableServiceLinks"), "variables of Services"),
    ("Deployment luminate", lambda d: pod(d)["securityContext"].update(runAsUser=0), "may run as root"),
    ("Deployment luminate", lambda d: pod(d)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    ("Deployment luminate", lambda d: pod(d).update(hostNetwork=True), "has hostNetwork"),
    ("Deployment luminate", lambda d: pod(d)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "mounts"),
    ("ServiceAccount luminate", lambda d: d.pop("automountServiceAccountToken"), "hands out tokens"),
    ("Deployment luminate", lambda d: the(d)["securityContext"].pop("allowPrivilegeEscalation"), "may become privileged"),
    ("Deployment luminate-redis", lambda d: the(d)["securityContext"].pop("readOnlyRootFilesystem"), "may write to its image"),
    ("Deployment luminate", lambda d: the(d)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "has capabilities"),
    ("Deployment luminate", lambda d: the(d)["ports"][0].update(hostPort=80), "takes a port of the node"),
    ("Deployment luminate", lambda d: the(d)["resources"]["limits"].pop("memory"), "has no limits"),
    ("Deployment luminate-redis", lambda d: the(d).pop("livenessProbe"), "has no livenessProbe"),
    ("Deployment luminate", lambda d: the(d)["livenessProbe"]["httpGet"].update(path="/health/ready"), "is restarted by /health/ready"),
    ("Deployment luminate", lambda d: the(d).update(image="luminate/luminate"), "is no certain one"),
    ("Deployment luminate", lambda d: the(d).update(image="localhost:5000/luminate:latest"), "is no certain one"),
    ("Deployment luminate", lambda d: the(d)["env"].append({"name": "REDIS_PASSWORD", "value": "hunter2"}), "is there to be read"),
    ("Deployment luminate", lambda d: the(d)["env"].append({"name": "REDIS_URL", "value": "redis://:hunter2@redis"}), "a password is in"),
    (
        "ConfigMap luminate-config",
        lambda d: d["data"].update({"luminate.yaml": d["data"]["luminate.yaml"].replace("password_file: /etc", "password: /etc")}),
        "luminate.yaml has storage.clickhouse.password",
    ),
    (
        "ConfigMap luminate-config",
        lambda d: d["data"].update({"luminate.yaml": d["data"]["luminate.yaml"].replace("grace: 30s", "grace: 1m")}),
        "needs 80 s to end and has 60",
    ),
    ("Deployment luminate", lambda d: the(d)["resources"]["limits"].update(memory="1Gi"), "a query may take 305 of 1024 MiB"),
    (
        "ConfigMap luminate-config",
        lambda d: d["data"].update({"luminate.yaml": d["data"]["luminate.yaml"].replace("max_samples: 20000000", "timeout: 1m")}),
        "a query may take 763 of 2048 MiB",
    ),
    ("Deployment luminate", lambda d: the(d).pop("lifecycle"), "does not wait for load balancers"),
    ("Deployment luminate", lambda d: d["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1), "is updated by"),
]


def test_each_mistake_is_found():
    right = documents(kustomize("overlays/scalable"))
    assert not list(Deployed(right).faults())
    for name, mistake, said in MISTAKES:
        objects = copy.deepcopy(right)
        (document,) = [d for d in objects if f"{d['kind']} {d['metadata']['name']}" == name]
        mistake(document)
        faults = list(Deployed(objects).faults())
        assert any(said in fault for fault in faults), f"{name}: {said}: {faults}"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "luminate-secrets", "namespace": "luminate"}}
    assert any("would go over" in fault for fault in Deployed([*right, secret]).faults())


def test_checkov_finds_nothing_but_what_an_operator_decides(rendered, tmp_path):
    python = TOOLS / "checkov" / "bin" / "python"
    if not python.exists():
        missing("checkov")
    for name, objects in rendered.items():
        if name == ALL_OTHERWISE:
            continue
        (tmp_path / (name.replace("/", "_") + ".yaml")).write_text(yaml.safe_dump_all(objects))
    done = run(
        python, "-m", "checkov.main", "-d", tmp_path, "--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "-o", "json",
        check=False, cwd=tmp_path, env={**os.environ, "LOG_LEVEL": "ERROR"},
    )
    assert done.stdout.strip(), done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["passed"] > 100 and found["summary"]["parsing_errors"] == 0
    failed = {
        f"{check['file_path']} {check['resource']}: {check['check_id']} {check['check_name']}"
        for check in found["results"]["failed_checks"]
        if check["check_id"] not in NOT_ASKED
    }
    assert not failed, "\n".join(sorted(failed))
