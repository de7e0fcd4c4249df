"""A stand-in for a Kubernetes cluster, for kubectl and Helm to work against where there is none.

An API server in memory: discovery, objects with create, get, list, watch, replace, patch (strategic merge, merge,
JSON patch, apply) and delete, the scale of Deployments, tables, logs. Every object is checked against Kubernetes'
own schemas, unknown fields and all; namespaces have to exist, and what cannot be changed is not. The controllers
are played at once: a Deployment or StatefulSet has its pods as soon as it is written, and they are ready if what
they mount is there; a Job, or a pod by itself, has then done its work. Nothing is scheduled and nothing is scaled:
the numbers of pods are those that are asked for.

    with ApiServer() as cluster:
        run(kubectl, "--kubeconfig", cluster.kubeconfig(folder), "apply", "-k", …)
        assert cluster.get("Deployment", "luminate")

Or by hand: `apiserver.py --kubeconfig FILE` serves until it is told to stop.
"""

import argparse
import base64
import copy
import dataclasses
import functools
import hashlib
import json
import re
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import kubernetes_validate
import referencing
import yaml

import protobuf

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclasses.dataclass(frozen=True)
class Resource:
    """A kind of objects, and what `kubectl get` shows of it: a column's name (a - before it: only if wide) and how."""

    api: str
    plural: str
    kind: str
    short: tuple = ()
    namespaced: bool = True
    columns: tuple = ()

    @property
    def path(self):
        return ("api/" if self.api == "v1" else "apis/") + self.api


def of(*path, default=""):
    """A column that shows the field at a path."""

    def show(document):
        for step in path:
            document = document.get(step) if isinstance(document, dict) else None
        return default if document is None else str(document)

    return show


def pod_ready(pod):
    states = pod["status"].get("containerStatuses", [])
    return f"{sum(state['ready'] for state in states)}/{len(pod['spec']['containers'])}"


def pod_state(pod):
    for state in pod["status"].get("containerStatuses", []):
        if "waiting" in state["state"]:
            return state["state"]["waiting"]["reason"]
    return pod["status"]["phase"]


def ready_of(document):
    return f"{document['status'].get('readyReplicas', 0)}/{document['spec']['replicas']}"


def images(document):
    return ",".join(container["image"] for container in document["spec"]["template"]["spec"]["containers"])


def targets(document):
    metrics = document["spec"].get("metrics", [])
    return ", ".join(f"{m['resource']['name']}: <unknown>/{m['resource']['target']['averageUtilization']}%" for m in metrics)


def service_ports(document):
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in document["spec"].get("ports", []))


RESOURCES = [
    Resource("v1", "namespaces", "Namespace", ("ns",), False, (("Status", of("status", "phase")),)),
    Resource(
        "v1", "pods", "Pod", ("po",),
        columns=(("Ready", pod_ready), ("Status", pod_state), ("Restarts", lambda _: "0"), ("-Node", of("spec", "nodeName"))),
    ),
    Resource(
        "v1", "services", "Service", ("svc",),
        columns=(
            ("Type", of("spec", "type")), ("Cluster-IP", of("spec", "clusterIP")),
            ("External-IP", lambda d: "<pending>" if d["spec"]["type"] == "LoadBalancer" else "<none>"), ("Port(s)", service_ports),
        ),
    ),
    Resource("v1", "configmaps", "ConfigMap", ("cm",), columns=(("Data", lambda d: str(len(d.get("data", {})))),)),
    Resource("v1", "secrets", "Secret", columns=(("Type", of("type")), ("Data", lambda d: str(len(d.get("data", {})))))),
    Resource("v1", "serviceaccounts", "ServiceAccount", ("sa",)),
    Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim", ("pvc",), columns=(("Status", of("status", "phase")),)),
    Resource("v1", "events", "Event", ("ev",)),
    Resource(
        "apps/v1", "deployments", "Deployment", ("deploy",),
        columns=(
            ("Ready", ready_of), ("Up-to-date", of("status", "updatedReplicas", default="0")),
            ("Available", of("status", "availableReplicas", default="0")), ("-Images", images),
        ),
    ),
    Resource("apps/v1", "statefulsets", "StatefulSet", ("sts",), columns=(("Ready", ready_of), ("-Images", images))),
    Resource("apps/v1", "replicasets", "ReplicaSet", ("rs",)),
    Resource("apps/v1", "daemonsets", "DaemonSet", ("ds",)),
    Resource("batch/v1", "jobs", "Job"),
    Resource("batch/v1", "cronjobs", "CronJob", ("cj",)),
    Resource(
        "autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", ("hpa",),
        columns=(
            ("Reference", lambda d: f"{d['spec']['scaleTargetRef']['kind']}/{d['spec']['scaleTargetRef']['name']}"),
            ("Targets", targets), ("MinPods", of("spec", "minReplicas")), ("MaxPods", of("spec", "maxReplicas")),
            ("Replicas", of("status", "currentReplicas", default="0")),
        ),
    ),
    Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", ("pdb",)),
    Resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", ("netpol",)),
    Resource(
        "networking.k8s.io/v1", "ingresses", "Ingress", ("ing",),
        columns=(
            ("Class", of("spec", "ingressClassName")),
            ("Hosts", lambda d: ",".join(rule.get("host", "*") for rule in d["spec"].get("rules", []))),
        ),
    ),
    Resource("rbac.authorization.k8s.io/v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    # Kinds that operators bring. Kubernetes' schemas say nothing of what is in them.
    Resource("monitoring.coreos.com/v1", "servicemonitors", "ServiceMonitor"),
    Resource("monitoring.coreos.com/v1", "podmonitors", "PodMonitor"),
    Resource("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule"),
    Resource("keda.sh/v1alpha1", "scaledobjects", "ScaledObject"),
    Resource("keda.sh/v1alpha1", "triggerauthentications", "TriggerAuthentication"),
    Resource("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
]
FOREIGN = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1"}
APIS = list(dict.fromkeys(resource.api for resource in RESOURCES))


class Refused(Exception):
    """An answer of Kubernetes that is not what was asked for."""

    def __init__(self, code, reason, message, **details):
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code,
        }


def invalid(resource, name, cause):
    group = "" if resource.api == "v1" else f".{resource.api.split('/')[0]}"
    message = f'{resource.kind}{group} "{name}" is invalid: {cause}'
    field, _, text = cause.partition(": ")
    causes = [{"reason": "FieldValueInvalid", "field": field, "message": text}]
    return Refused(422, "Invalid", message, name=name, kind=resource.kind, causes=causes)


def not_found(resource, name):
    return Refused(404, "NotFound", f'{resource.plural} "{name}" not found', name=name, kind=resource.plural)


class Schemas:
    """What Kubernetes of a version takes, and by what elements of its lists are told apart."""

    def __init__(self, version):
        home = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
        text = (home / f"v{version}.0-local-strict" / "_definitions.json").read_text()
        whole = json.loads(text)
        self.definitions = whole["$defs"]
        self.registry = referencing.Resource.from_contents(whole) @ referencing.Registry()
        self.root = whole["$id"]
        self.kinds = {
            (kind["group"], kind["version"], kind["kind"]): name
            for name, definition in self.definitions.items()
            for kind in definition.get("x-kubernetes-group-version-kind", [])
        }

    @functools.cache
    def validator(self, resource):
        group, _, version = resource.api.rpartition("/")
        name = self.kinds[group, version, resource.kind]
        schema = {"$ref": f"{self.root}#/$defs/{name}"}
        return jsonschema.Draft202012Validator(schema, registry=self.registry)

    def check(self, resource, document):
        """What is wrong with an object, if anything is."""
        if resource.api in FOREIGN:
            return None
        error = jsonschema.exceptions.best_match(self.validator(resource).iter_errors(document))
        return error and f"{'.'.join(map(str, error.absolute_path))}: {error.message}"

    def root_of(self, resource):
        if resource.api in FOREIGN:
            return None
        group, _, version = resource.api.rpartition("/")
        return self.definitions[self.kinds[group, version, resource.kind]]

    def step(self, schema, name):
        """The schema of a field and of its elements, and how lists of it are merged."""
        field = (schema or {}).get("properties", {}).get(name) or (schema or {}).get("additionalProperties") or {}
        if not isinstance(field, dict):
            return None, None, None, ""
        strategy = field.get("x-kubernetes-patch-strategy", "")
        return self.deref(field), self.deref(field.get("items")), field.get("x-kubernetes-patch-merge-key"), strategy

    def deref(self, schema):
        while schema and "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return schema


def merge(old, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = merge(new.get(name), value)
    return new


def json_patch(document, operations):
    """RFC 6902, without move and copy, which nobody sends."""
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = document
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]
        place = (len(at) if last == "-" else int(last)) if isinstance(at, list) else last
        match operation["op"]:
            case "add" if isinstance(at, list):
                at.insert(place, operation["value"])
            case "add" | "replace":
                at[place] = operation["value"]
            case "remove":
                del at[place]
            case "test":
                if at[place] != operation["value"]:
                    raise Refused(422, "Invalid", f"the test of {operation['path']} failed")
            case other:
                raise Refused(400, "BadRequest", f"unknown operation {other}")
    return document


def strategic(schemas, schema, old, patch):
    """Kubernetes' own kind of patch: lists whose elements have a key are merged by it."""
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    new = dict(old) if isinstance(old, dict) else {}
    if "$retainKeys" in patch:
        new = {name: value for name, value in new.items() if name in patch["$retainKeys"]}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        field, items, key, strategy = schemas.step(schema, name)
        if value is None:
            new.pop(name, None)
        elif isinstance(value, dict):
            new[name] = strategic(schemas, field, new.get(name), value)
        elif isinstance(value, list) and "merge" in strategy and key:
            new[name] = merge_list(schemas, items, key, new.get(name) or [], value)
        elif isinstance(value, list) and "merge" in strategy:
            new[name] = list(dict.fromkeys([*(new.get(name) or []), *value]))
        else:
            new[name] = value
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            new[field] = [element for element in new.get(field, []) if element not in value]
    for name, order in patch.items():
        if name.startswith("$setElementOrder/"):
            field = name.partition("/")[2]
            key = schemas.step(schema, field)[2]
            wanted = [element.get(key) if isinstance(element, dict) else element for element in order]

            def place(element):
                it = element.get(key) if isinstance(element, dict) else element
                return wanted.index(it) if it in wanted else len(wanted)

            if field in new:
                new[field] = sorted(new[field], key=place)
    return new


def merge_list(schemas, schema, key, old, patch):
    if any(element.get("$patch") == "replace" for element in patch):
        old = []
    new = list(old)
    for element in patch:
        if element.get("$patch") == "replace":
            continue
        at = next((i for i, other in enumerate(new) if other.get(key) == element.get(key)), None)
        if element.get("$patch") == "delete":
            new = [other for other in new if other.get(key) != element.get(key)]
        elif at is None:
            new.append(strategic(schemas, schema, {}, element))
        else:
            new[at] = strategic(schemas, schema, new[at], element)
    return new


def selects(selector, labels):
    """Whether `a=b,c!=d,e in (f,g),h` holds for labels."""
    for part in re.split(r",(?![^(]*\))", selector) if selector else []:
        if several := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\((.*)\)\s*", part):
            name, how, values = several.groups()
            if (labels.get(name) in [value.strip() for value in values.split(",")]) != (how == "in"):
                return False
        elif "=" in part:
            name, how, value = re.fullmatch(r"\s*([^=!\s]+)\s*(!=|==?)\s*(\S*)\s*", part).groups()
            if (labels.get(name) == value) == (how == "!="):
                return False
        elif (part.strip().lstrip("!") in labels) == part.strip().startswith("!"):
            return False
    return True


def same(old, new):
    """Whether two versions of an object say the same, apart from what each write changes."""

    def bare(document):
        metadata = {name: value for name, value in document["metadata"].items() if name not in ("resourceVersion", "managedFields")}
        return {**document, "metadata": metadata}

    return bare(old) == bare(new)


def short_hash(*parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cluster:
    """The objects, and the controllers."""

    def __init__(self, version, broken=None, alone=False):
        self.version = version
        # Whether it is an API server alone: without controllers, and without schemas for clients.
        self.alone = alone
        self.schemas = Schemas(version)
        # Why pods with an image that has this in its name do not start: {"luminate:0.2": "ImagePullBackOff"}.
        self.broken = broken or {}
        self.objects = {}
        self.history = []
        self.clock = 0
        self.changed = threading.Condition(threading.RLock())
        with self.changed:
            for name in ("default", "kube-system"):
                self.create(RESOURCES[0], "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # What tests ask.

    def get(self, kind, name, namespace="luminate"):
        """An object, or None."""
        resource = next(resource for resource in RESOURCES if resource.kind == kind)
        with self.changed:
            return copy.deepcopy(self.objects.get((resource, namespace if resource.namespaced else "", name)))

    def all(self, *kinds):
        """Names of objects: {("Deployment", "luminate"), …}; without what controllers made, unless that is asked for."""
        with self.changed:
            return {
                (resource.kind, name)
                for (resource, namespace, name), document in self.objects.items()
                if (resource.kind in kinds if kinds else namespace or resource.kind == "Namespace")
                and (kinds or "ownerReferences" not in document["metadata"])
                and not (resource.kind == "Namespace" and name in ("default", "kube-system"))
            }

    # What kubectl asks.

    def find(self, resource, namespace, name):
        found = self.objects.get((resource, namespace, name))
        if found is None:
            raise not_found(resource, name)
        return found

    def list(self, resource, namespace, labels="", fields=""):
        wanted = dict(part.split("=", 1) for part in fields.replace("==", "=").split(",") if part)

        def fits(document):
            for path, value in wanted.items():
                if of(*path.split("."))(document) != value:
                    return False
            return selects(labels, document["metadata"].get("labels", {}))

        return [
            document for (of_kind, place, _), document in sorted(self.objects.items(), key=lambda pair: pair[0][1:])
            if of_kind is resource and (not namespace or place == namespace) and fits(document)
        ]

    def create(self, resource, namespace, document, dry=False):
        metadata = document.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + short_hash(self.clock)[:5]
        name = metadata.get("name", "")
        if (resource, namespace, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{resource.plural} "{name}" already exists', name=name, kind=resource.plural)
        if resource.namespaced and (RESOURCES[0], "", namespace) not in self.objects:
            raise not_found(RESOURCES[0], namespace)
        metadata["uid"] = f"{short_hash(resource.kind, namespace, name, self.clock)[:8]}-0000-4000-8000-000000000000"
        metadata["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return self.put(resource, namespace, name, None, document, dry)

    def replace(self, resource, namespace, name, document, dry=False):
        old = self.find(resource, namespace, name)
        metadata = document["metadata"]
        if metadata.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", f'{resource.plural} "{name}": the object has been modified', name=name)
        for field in ("uid", "creationTimestamp"):
            metadata[field] = old["metadata"][field]
        return self.put(resource, namespace, name, old, document, dry)

    def patch(self, resource, namespace, name, how, patch, dry=False):
        old = self.objects.get((resource, namespace, name))
        if how == "application/apply-patch+yaml":
            if old is None:
                return self.create(resource, namespace, patch, dry)
            patch.get("metadata", {}).pop("managedFields", None)
        elif old is None:
            raise not_found(resource, name)
        base = copy.deepcopy(old)
        if how == "application/json-patch+json":
            new = json_patch(base, patch)
        elif how == "application/merge-patch+json":
            new = merge(base, patch)
        elif resource.api in FOREIGN and how == "application/strategic-merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", f"{resource.kind} takes no strategic merge patch")
        elif how in ("application/strategic-merge-patch+json", "application/apply-patch+yaml"):
            new = strategic(self.schemas, self.schemas.root_of(resource), base, patch)
        else:
            raise Refused(415, "UnsupportedMediaType", f"{how} is no patch")
        return self.replace(resource, namespace, name, new, dry)

    def delete(self, resource, namespace, name):
        gone = self.find(resource, namespace, name)
        del self.objects[resource, namespace, name]
        self.tell("DELETED", resource, namespace, gone)
        for key, document in list(self.objects.items()):
            owners = [owner["uid"] for owner in document["metadata"].get("ownerReferences", [])]
            inside = resource.kind == "Namespace" and key[1] == name
            if key in self.objects and (inside or gone["metadata"]["uid"] in owners):
                self.delete(*key)
        if resource.kind == "Pod":
            self.play()
        return gone

    def put(self, resource, namespace, name, old, document, dry):
        """Checks an object, and keeps it if it says something else than before."""
        document.update(apiVersion=resource.api, kind=resource.kind)
        if resource.namespaced and document["metadata"].setdefault("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the object does not match the namespace of the request")
        if document["metadata"].get("name") != name:
            raise Refused(400, "BadRequest", "the name of the object does not match the name of the request")
        # As they are everywhere; a Role may have a colon.
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.:]{0,251}[a-z0-9])?", name):
            raise invalid(resource, name, f'metadata.name: Invalid value: "{name}"')
        # How it is, is not for who writes it to say.
        document.pop("status", None)
        if old is not None and "status" in old:
            document["status"] = old["status"]
        self.default(resource, old, document)
        # kubectl writes null for what it has no time for.
        document["metadata"] = {field: value for field, value in document["metadata"].items() if value is not None}
        wrong = self.schemas.check(resource, document) or self.contradiction(resource, old, document)
        if wrong:
            raise invalid(resource, name, wrong)
        if old is not None and same(old, document):
            return old
        if dry:
            return document
        if "spec" in document and resource.kind != "Pod":
            changed = old is None or old.get("spec") != document["spec"]
            document["metadata"]["generation"] = (old or document)["metadata"].get("generation", 0) + changed
        self.objects[resource, namespace, name] = document
        self.tell("ADDED" if old is None else "MODIFIED", resource, namespace, document)
        self.play()
        return self.objects[resource, namespace, name]

    def tell(self, event, resource, namespace, document):
        self.clock += 1
        document["metadata"]["resourceVersion"] = str(self.clock)
        self.history.append((self.clock, event, resource, namespace, copy.deepcopy(document)))
        self.changed.notify_all()

    def default(self, resource, old, document):
        spec = document.get("spec", {})
        match resource.kind:
            case "Namespace":
                document["status"] = {"phase": "Active"}
            case "Secret":
                # What is written as text is kept as bytes.
                text = document.pop("stringData", None) or {}
                data = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
                if data:
                    document["data"] = {**(document.get("data") or {}), **data}
                document.setdefault("type", "Opaque")
            case "Deployment" | "StatefulSet":
                # Which is what becomes of a number that was applied once and is no longer.
                spec.setdefault("replicas", 1)
                if old is not None:
                    document["status"] = old["status"]
                document.setdefault("status", {"replicas": 0})
            case "Service":
                spec.setdefault("type", "ClusterIP")
                spec.setdefault("clusterIP", (old or {}).get("spec", {}).get("clusterIP") or f"10.96.{self.clock // 250}.{self.clock % 250 + 1}")
            case "PersistentVolumeClaim":
                document["status"] = {"phase": "Bound"}

    def contradiction(self, resource, old, document):
        """What no schema says: fields that do not fit each other, or must not change."""
        spec = document.get("spec", {})
        before = (old or {}).get("spec", spec)
        if resource.kind in ("Deployment", "StatefulSet", "DaemonSet"):
            if spec["selector"] != before["selector"]:
                return "spec.selector: Invalid value: field is immutable"
            if not spec["template"].get("spec"):
                return "spec.template.spec.containers: Required value"
            labels = spec["template"].get("metadata", {}).get("labels", {})
            if any(labels.get(name) != value for name, value in spec["selector"].get("matchLabels", {}).items()):
                return "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`"
        if resource.kind == "StatefulSet":
            free = {"replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "ordinals", "revisionHistoryLimit"}
            if any(spec.get(field) != before.get(field) for field in {*spec, *before} - free):
                return f"spec: Forbidden: updates to statefulset spec for fields other than {', '.join(sorted(free))} are forbidden"
        if resource.kind == "Service" and spec["clusterIP"] != before["clusterIP"]:
            return "spec.clusterIP: Invalid value: field is immutable"
        if resource.kind == "HorizontalPodAutoscaler" and spec.get("minReplicas", 1) > spec["maxReplicas"]:
            return "spec.maxReplicas: Invalid value: must be greater than or equal to `minReplicas`"
        pod = spec.get("template", {}).get("spec") if "template" in spec else spec if resource.kind == "Pod" else None
        return self.pod_contradiction(pod, {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}) if pod else None

    def pod_contradiction(self, pod, volumes):
        volumes = volumes | {volume["name"] for volume in pod.get("volumes", [])}
        names = [container["name"] for container in pod["containers"]]
        if len(names) != len(set(names)):
            return "spec.containers: Duplicate value"
        for container in pod["containers"] + pod.get("initContainers", []):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    return f'spec.containers.volumeMounts.name: Not found: "{mount["name"]}"'
            for kind, amount in container.get("resources", {}).get("requests", {}).items():
                limit = container["resources"].get("limits", {}).get(kind)
                if limit is not None and quantity(amount) > quantity(limit):
                    return f"spec.containers.resources.requests: must be less than or equal to {kind} limit"
        return None

    # The controllers.

    def play(self):
        """Makes what is there what is asked for."""
        if self.alone:
            return
        for (resource, namespace, name), document in list(self.objects.items()):
            if resource.kind in ("Deployment", "StatefulSet") and (resource, namespace, name) in self.objects:
                self.play_pods(resource, namespace, name, document)
        for (resource, namespace, name), document in list(self.objects.items()):
            if resource.kind == "Job" and not self.lacks(namespace, document["spec"]["template"]["spec"]):
                done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
                self.status(resource, namespace, name, {"succeeded": 1, "conditions": done})
            if resource.kind == "Pod" and not document["metadata"].get("ownerReferences"):
                done = document["spec"].get("restartPolicy") == "Never" and not self.lacks(namespace, document["spec"])
                self.status(resource, namespace, name, {"phase": "Succeeded" if done else "Pending"})
            if resource.kind == "HorizontalPodAutoscaler":
                target = self.get(document["spec"]["scaleTargetRef"]["kind"], document["spec"]["scaleTargetRef"]["name"], namespace)
                count = target["spec"]["replicas"] if target else 0
                self.status(resource, namespace, name, {"currentReplicas": count, "desiredReplicas": count})

    def play_pods(self, resource, namespace, name, owner):
        spec = owner["spec"]
        template = short_hash(spec["template"])[:10]
        if resource.kind == "StatefulSet":
            wanted = [f"{name}-{i}" for i in range(spec["replicas"])]
        else:
            wanted = [f"{name}-{template}-{short_hash(template, i)[:5]}" for i in range(spec["replicas"])]
        pods = next(r for r in RESOURCES if r.kind == "Pod")
        claims = next(r for r in RESOURCES if r.kind == "PersistentVolumeClaim")
        for key, pod in list(self.objects.items()):
            ours = any(of["uid"] == owner["metadata"]["uid"] for of in pod["metadata"].get("ownerReferences", []))
            if key[0] is pods and ours and (key[2] not in wanted or pod["metadata"]["labels"]["template-hash"] != template):
                del self.objects[key]
                self.tell("DELETED", pods, namespace, pod)
        ready = 0
        for pod_name in wanted:
            for claim in spec.get("volumeClaimTemplates", []):
                claim_name = f"{claim['metadata']['name']}-{pod_name}"
                if (claims, namespace, claim_name) not in self.objects:
                    self.create(claims, namespace, {"metadata": {**claim["metadata"], "name": claim_name}, "spec": copy.deepcopy(claim["spec"])})
            if (pods, namespace, pod_name) not in self.objects:
                metadata = copy.deepcopy(spec["template"]["metadata"])
                metadata.update(
                    name=pod_name, namespace=namespace, uid=short_hash(pod_name, self.clock)[:8],
                    creationTimestamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    ownerReferences=[{"apiVersion": resource.api, "kind": resource.kind, "name": name, "uid": owner["metadata"]["uid"], "controller": True}],
                )
                metadata.setdefault("labels", {})["template-hash"] = template
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(spec["template"]["spec"]), "status": {}}
                self.objects[pods, namespace, pod_name] = pod
                self.tell("ADDED", pods, namespace, pod)
            ready += self.play_pod(pods, namespace, pod_name)
        count = len(wanted)
        status = {
            "observedGeneration": owner["metadata"]["generation"], "replicas": count, "updatedReplicas": count,
            "readyReplicas": ready, "availableReplicas": ready, "currentReplicas": count,
            "currentRevision": f"{name}-{template}", "updateRevision": f"{name}-{template}",
        }
        if resource.kind == "Deployment":
            for field in ("currentReplicas", "currentRevision", "updateRevision"):
                del status[field]
            status["conditions"] = [{"type": "Available", "status": "True" if ready == count else "False"}]
        self.status(resource, namespace, name, status)

    def play_pod(self, pods, namespace, name):
        """Whether a pod is ready: if all it mounts is there, and nobody says that it is broken."""
        pod = self.objects[pods, namespace, name]
        why = self.lacks(namespace, pod["spec"])
        for container in pod["spec"]["containers"]:
            why = why or next((reason for part, reason in self.broken.items() if part in container["image"]), None)
        state = {"waiting": {"reason": why}} if why else {"running": {}}
        status = {
            "phase": "Pending" if why else "Running",
            "conditions": [{"type": "Ready", "status": "False" if why else "True"}],
            "containerStatuses": [
                {"name": c["name"], "image": c["image"], "ready": not why, "restartCount": 0, "imageID": "", "state": state} for c in pod["spec"]["containers"]
            ],
        }
        self.status(pods, namespace, name, status)
        return not why

    def lacks(self, namespace, pod):
        for volume in pod.get("volumes", []):
            for kind, source, by in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
                if source not in volume or volume[source].get("optional"):
                    continue
                found = self.get(kind, volume[source][by], namespace)
                if not found or any(item["key"] not in found.get("data", {}) for item in volume[source].get("items", [])):
                    return "ContainerCreating"
        return None

    def status(self, resource, namespace, name, status):
        document = self.objects.get((resource, namespace, name))
        if document is not None and document.get("status") != status:
            # Not in place: who was given the object before may still be writing it out.
            document = {**document, "metadata": dict(document["metadata"]), "status": status}
            self.objects[resource, namespace, name] = document
            self.tell("MODIFIED", resource, namespace, document)


def quantity(text):
    """The number behind 250m or 2Gi."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()
    return float(number) * {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[unit]


def table(resource, documents, clock):
    columns = (("Name", of("metadata", "name")), *resource.columns, ("Age", lambda _: "0s"))
    return {
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(clock)},
        "columnDefinitions": [
            {"name": name.lstrip("-"), "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": int(name[0] == "-")}
            for name, _ in columns
        ],
        "rows": [
            {
                "cells": [show(document) for _, show in columns],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": document["metadata"]},
            }
            for document in documents
        ],
    }


def discovery(api):
    resources = []
    for resource in RESOURCES:
        if resource.api != api:
            continue
        about = {
            "name": resource.plural, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS, "shortNames": list(resource.short),
        }
        if resource.kind in ("Pod", "Service", "Deployment", "StatefulSet", "HorizontalPodAutoscaler"):
            about["categories"] = ["all"]
        resources.append(about)
        if resource.kind in ("Deployment", "StatefulSet"):
            scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
            resources.append({"name": f"{resource.plural}/scale", "singularName": "", "namespaced": True, "verbs": ["get", "patch", "update"], **scale})
        if resource.kind == "Pod":
            resources.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources}


def openapi(api):
    """What kubectl asks before it leaves the search for unknown fields to the server: whether that does it."""
    paths = {}
    for resource in RESOURCES:
        if resource.api == api:
            group, _, version = api.rpartition("/")
            place = "/namespaces/{namespace}" if resource.namespaced else ""
            paths[f"/{resource.path}{place}/{resource.plural}/{{name}}"] = {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": resource.kind},
                }
            }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths, "components": {"schemas": {}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet, and does not wait for another to be acknowledged.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def do_PATCH(self):
        self.answer("PATCH")

    def do_DELETE(self):
        self.answer("DELETE")

    def answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            if body.startswith(protobuf.MAGIC):
                try:
                    document = protobuf.document(body)
                except ValueError as error:
                    raise Refused(415, "UnsupportedMediaType", str(error)) from error
                body = json.dumps(document).encode()
            self.server.requests.append((method, self.path, body.decode()))
            # YAML, which JSON is, too.
            document = yaml.safe_load(body) if body else {}
            code, answer = self.about(method, url.path) or self.objects(method, url.path, query, document)
        except Refused as refused:
            code, answer = refused.code, refused.status
        except yaml.YAMLError as error:
            code, answer = 400, Refused(400, "BadRequest", f"cannot read the body: {error}").status
        if answer is not None:
            self.send(code, answer)

    def send(self, code, answer):
        if isinstance(answer, dict):
            kind, bytes_ = "application/json", json.dumps(answer).encode()
        else:
            kind, bytes_ = "text/plain", answer.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(bytes_)))
        self.end_headers()
        self.wfile.write(bytes_)

    def about(self, method, path):
        """What the server says about itself."""
        if method != "GET":
            return None
        path = path.rstrip("/")
        apis = {("/api/v1" if api == "v1" else f"/apis/{api}"): api for api in APIS}
        if path in ("/readyz", "/livez", "/healthz"):
            return 200, "ok"
        if path == "/version":
            major, minor = self.server.cluster.version.split(".")
            return 200, {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0", "platform": "linux/amd64"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
        if path == "/apis":
            versions = [{"groupVersion": api, "version": api.split("/")[1]} for api in APIS if api != "v1"]
            groups = [{"name": v["groupVersion"].split("/")[0], "versions": [v], "preferredVersion": v} for v in versions]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path in apis:
            return 200, discovery(apis[path])
        if self.server.cluster.alone and path.startswith("/openapi"):
            return None
        if path == "/openapi/v2":
            # In protobuf, where nothing at all is a document that knows nothing.
            return 200, ""
        if path == "/openapi/v3":
            return 200, {"paths": {place.lstrip("/"): {"serverRelativeURL": f"/openapi/v3{place}"} for place in apis}}
        if path.removeprefix("/openapi/v3") in apis and path.startswith("/openapi/v3"):
            return 200, openapi(apis[path.removeprefix("/openapi/v3")])
        return None

    def objects(self, method, path, query, document):
        resource, namespace, name, sub = route(path)
        cluster = self.server.cluster
        dry = query.get("dryRun") == "All"
        how = self.headers.get("Content-Type", "").partition(";")[0]
        with cluster.changed:
            match method, name, sub:
                case "GET", "", "" if query.get("watch") in ("true", "1"):
                    pass
                case "GET", "", "":
                    found = cluster.list(resource, namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
                    return 200, self.shown(resource, found, None)
                case "GET", _, "":
                    found = cluster.find(resource, namespace, name)
                    return 200, self.shown(resource, [found], found)
                case "GET", _, "log":
                    pod = cluster.find(resource, namespace, name)
                    return 200, f"{json.dumps({'event': 'started', 'pod': pod['metadata']['name']})}\n"
                case ("GET" | "PUT" | "PATCH"), _, "scale":
                    return 200, self.scale(resource, namespace, name, method, how, document)
                case "POST", "", "":
                    return 201, copy.deepcopy(cluster.create(resource, namespace, document, dry))
                case "PUT", _, "":
                    return 200, copy.deepcopy(cluster.replace(resource, namespace, name, document, dry))
                case "PATCH", _, "":
                    return 200, copy.deepcopy(cluster.patch(resource, namespace, name, how, document, dry))
                case "DELETE", "", "":
                    for found in cluster.list(resource, namespace, query.get("labelSelector", "")):
                        cluster.delete(resource, found["metadata"].get("namespace", ""), found["metadata"]["name"])
                    return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
                case "DELETE", _, "":
                    gone = cluster.find(resource, namespace, name) if dry else cluster.delete(resource, namespace, name)
                    details = {"name": name, "kind": resource.plural, "uid": gone["metadata"]["uid"]}
                    return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
                case _:
                    raise Refused(405, "MethodNotAllowed", f"{method} {path} is not served")
        return 200, self.watch(resource, namespace, query)

    def shown(self, resource, documents, one):
        """One object, or a list of them, as the caller wants to see it."""
        clock = self.server.cluster.clock
        if "as=Table" in self.headers.get("Accept", ""):
            return table(resource, documents, clock)
        if one is not None:
            return one
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api, "metadata": {"resourceVersion": str(clock)}, "items": documents}

    def scale(self, resource, namespace, name, method, how, document):
        cluster = self.server.cluster
        target = cluster.find(resource, namespace, name)
        scale = {
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {field: target["metadata"][field] for field in ("name", "namespace", "uid", "resourceVersion")},
            "spec": {"replicas": target["spec"]["replicas"]}, "status": {"replicas": target["status"].get("replicas", 0)},
        }
        if method == "GET":
            return scale
        asked = document if method == "PUT" else merge(scale, document)
        replicas = asked["spec"].get("replicas", 0)
        new = {**target, "metadata": dict(target["metadata"]), "spec": {**target["spec"], "replicas": replicas}}
        cluster.replace(resource, namespace, name, new)
        return merge(scale, {"spec": {"replicas": replicas}})

    def watch(self, resource, namespace, query):
        """What happens from now on, or from a version on, a line each, until somebody hangs up."""
        cluster = self.server.cluster
        end = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

        def say(event, document):
            line = json.dumps({"type": event, "object": document}).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        try:
            seen = int(query.get("resourceVersion") or 0)
            if not seen or query.get("sendInitialEvents") == "true":
                with cluster.changed:
                    seen, there = cluster.clock, copy.deepcopy(cluster.list(resource, namespace, labels, fields))
                for document in there:
                    say("ADDED", document)
                if query.get("sendInitialEvents") == "true":
                    metadata = {"resourceVersion": str(seen), "annotations": {"k8s.io/initial-events-end": "true"}}
                    say("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api, "metadata": metadata})
            name = dict(part.split("=", 1) for part in fields.split(",") if part).get("metadata.name")
            while time.monotonic() < end and not self.server.stopping:
                with cluster.changed:
                    if not any(event[0] > seen for event in cluster.history[-1:]):
                        cluster.changed.wait(0.2)
                    news = [event for event in cluster.history if event[0] > seen]
                for clock, event, of_kind, place, document in news:
                    seen = clock
                    fits = of_kind is resource and place == (namespace or place) and name in (None, document["metadata"]["name"])
                    if fits and selects(labels, document["metadata"].get("labels", {})):
                        say(event, document)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # Whoever watched has seen enough.
            self.close_connection = True
        return None


def route(path):
    """What a path names: a kind of objects, a namespace, a name, and what of it."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    api, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name, sub = (rest + ["", "", ""])[1:3]
    for resource in RESOURCES:
        if resource.api == api and rest and resource.plural == rest[0] and len(rest) < 4:
            return resource, namespace, name, sub
    raise Refused(404, "NotFound", "the server could not find the requested resource")


class ApiServer(ThreadingHTTPServer):
    """The cluster behind a free port of this machine, while it is entered."""

    daemon_threads = True

    def __init__(self, version="1.35", broken=None, port=0, alone=False):
        super().__init__(("127.0.0.1", port), Handler)
        self.cluster = Cluster(version, broken, alone)
        # Every request: method, path with query, body.
        self.requests = []
        self.stopping = False
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        # Clients that have seen enough of a watch go away in the middle of it.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __getattr__(self, name):
        return getattr(self.__dict__["cluster"], name)

    def kubeconfig(self, path):
        """Writes how to get here, and gives the path."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "nobody"}}],
        }
        Path(path).write_text(yaml.safe_dump(config))
        return str(path)


def main():
    arguments = argparse.ArgumentParser(description="A stand-in for a Kubernetes cluster, until it is told to stop.")
    arguments.add_argument("--kubeconfig", required=True, help="the file to write for kubectl")
    arguments.add_argument("--version", default="1.35", help="which Kubernetes to be")
    arguments.add_argument("--port", type=int, default=0)
    given = arguments.parse_args()
    with ApiServer(given.version, port=given.port) as server:
        print(f"export KUBECONFIG={server.kubeconfig(given.kubeconfig)}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    # Before there are threads that would get them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
