"""What the deployments run: each container of a manifest, a Compose file or a unit, as one plain description.

A `Workload` holds what `contained.Container` needs to start it as it would be started where it is deployed, and what
whoever watches it there goes by: probes, hooks, how long it may take to end. Where it comes from makes no
difference any more, and equal ones from different places are equal.
"""

import atexit
import base64
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml

from house import DEPLOYMENTS, documents, luminate, pod_templates, program, run

BINARY = "/usr/local/bin/luminate"


@dataclass
class Workload:
    kind: str  # of the object: Deployment, Job, …; "service" of Compose, "unit" of systemd
    name: str
    image: str
    command: list | None = None
    args: list | None = None
    env: dict = field(default_factory=dict)
    # Folders of files, {path: {name: text}}, with how they may be read; single files, {path: text}.
    folders: dict = field(default_factory=dict)
    modes: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    # Where it may write: what stays, and what is gone with it.
    data: list = field(default_factory=list)
    tmpfs: list = field(default_factory=list)
    user: int | None = None
    group: int | None = None
    groups: list = field(default_factory=list)
    read_only: bool = False
    ports: dict = field(default_factory=dict)
    # {"startup": {...}, "liveness": …, "readiness": …}: probes as in a manifest.
    probes: dict = field(default_factory=dict)
    # What is run in it before it is told to stop, and how long that and its end may take together.
    hook: list | None = None
    grace: float = 30
    # The port and path at which Prometheus is told to find metrics.
    scrape: tuple | None = None
    # Compose's: what is run in it to learn how it is.
    healthcheck: list | None = None

    @property
    def words(self):
        """What it is told, without the binary."""
        words = [*(self.command or []), *(self.args or [])]
        return words[1:] if words and words[0] == BINARY else words

    @property
    def serves(self):
        return self.words[:1] in ([], ["serve"])

    def text(self, path):
        """What a file has that is mounted into it."""
        if path in self.files:
            return self.files[path]
        folder, _, name = path.rpartition("/")
        return self.folders[folder][name]

    @property
    def is_luminate(self):
        return self.image.rpartition("/")[2].partition("@")[0].partition(":")[0] == "luminate"


# What a pod knows of itself.
FIELDS = {
    "metadata.name": "luminate-0",
    "metadata.namespace": "luminate",
    "spec.nodeName": "node-1",
    "status.hostIP": "192.0.2.1",
    "status.podIP": "127.0.0.1",
}


class Secrets:
    """What manifests refer to and do not hold: drawn when first asked for, and then the same."""

    def __init__(self, text=""):
        self.text, self.drawn = text, {}

    def get(self, name, key):
        """What a Secret has under a key."""
        held = self.drawn.setdefault(name, {})
        if key not in held:
            drawn = secrets.token_hex(24)
            held[key] = "redis://redis.elsewhere:6379" if key.endswith("url") else drawn
        return held[key]

    def at(self, path, name):
        """What a Secret has that is mounted whole: what is read from there."""
        for key in re.findall(re.escape(path) + r"/([\w.-]+)", self.text):
            self.get(name, key)
        return dict(self.drawn.get(name, {}))

    def put(self, name, values):
        """Has what a manifest says a Secret has; real certificates for pretended ones."""
        for key, text in values.items():
            if "-----BEGIN" in text:
                kind = "tls.key" if "KEY" in text else "ca.crt" if "ca" in key else "tls.crt"
                values[key] = certificates()[kind].read_text()
        self.drawn.setdefault(name, {}).update(values)


@cache
def certificates():
    """A certificate for servers and clients, its key, and who vouches for it: {name: file}."""
    place = Path(tempfile.mkdtemp(prefix="luminate-certificates-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    made = {name: place / name for name in ["ca.key", "ca.crt", "tls.key", "tls.crt"]}
    new = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    run(*new, "-subj", "/CN=tests", "-keyout", made["ca.key"], "-out", made["ca.crt"])
    run(*new, "-subj", "/CN=luminate/O=main", "-addext", "subjectAltName=DNS:luminate", "-addext", "basicConstraints=CA:FALSE",
        "-CA", made["ca.crt"], "-CAkey", made["ca.key"], "-keyout", made["tls.key"], "-out", made["tls.crt"])
    return made


def kubernetes(text):
    """The workloads of a render, and the names and ports of its Services: [(name, port, target)]."""
    objects, held, maps = documents(text), Secrets(text), {}
    for document in objects:
        name = document["metadata"]["name"]
        if document["kind"] == "ConfigMap":
            maps[name] = document.get("data") or {}
        if document["kind"] == "Secret":
            plain = {key: base64.b64decode(text).decode() for key, text in (document.get("data") or {}).items()}
            held.put(name, plain | (document.get("stringData") or {}))
    found = []
    for document in objects:
        for template in pod_templates(document):
            spec = template["spec"]
            claims = [c["metadata"]["name"] for c in document["spec"].get("volumeClaimTemplates", [])]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                found.append(_container(document, template, container, claims, maps, held))
    return found, list(_services(objects, found))


def _services(objects, workloads):
    """The names under which Services are found, with their ports and those behind them."""
    ports = {name: port for workload in workloads for name, port in workload.ports.items()}
    for document in objects:
        if document["kind"] == "Service":
            name, namespace = document["metadata"]["name"], document["metadata"].get("namespace", "luminate")
            for port in document["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                for end in ["", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local"]:
                    yield name + end, port["port"], ports.get(target, target)


def _container(document, template, container, claims, maps, held):
    spec = template["spec"]
    context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
    workload = Workload(
        document["kind"],
        f"{document['metadata']['name']}/{container['name']}",
        container["image"],
        container.get("command"),
        container.get("args"),
        user=context.get("runAsUser"),
        group=context.get("runAsGroup"),
        groups=[context["fsGroup"]] if "fsGroup" in context else [],
        read_only=context.get("readOnlyRootFilesystem", False),
        ports={port["name"]: port["containerPort"] for port in container.get("ports", [])},
        probes={
            kind: container[f"{kind}Probe"]
            for kind in ["startup", "liveness", "readiness"]
            if f"{kind}Probe" in container
        },
        hook=container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command"),
        grace=spec.get("terminationGracePeriodSeconds", 30),
    )
    notes = template["metadata"].get("annotations", {}) if "metadata" in template else {}
    if notes.get("prometheus.io/scrape") == "true":
        workload.scrape = int(notes["prometheus.io/port"]), notes["prometheus.io/path"]
    workload.env = _environment(container, maps, held)
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        path, volume = mount["mountPath"], volumes.get(mount["name"])
        if mount["name"] in claims or "persistentVolumeClaim" in volume or "ephemeral" in volume:
            workload.data.append(path)
        elif "emptyDir" in volume:
            workload.tmpfs.append(path)
        else:
            texts, mode = _texts(volume, path, maps, held)
            if "subPath" in mount:
                workload.files[path] = texts[mount["subPath"]]
            else:
                workload.folders[path], workload.modes[path] = texts, mode
    return workload


def _environment(container, maps, held):
    env = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            env |= maps.get(source["configMapRef"]["name"], {})
        else:
            env |= held.drawn.get(source["secretRef"]["name"], {})
    for variable in container.get("env", []):
        match variable:
            case {"name": name, "value": value}:
                env[name] = value
            case {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}:
                env[name] = held.get(secret, key)
            case {"name": name, "valueFrom": {"configMapKeyRef": {"name": of, "key": key}}}:
                env[name] = maps[of][key]
            case {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}:
                env[name] = FIELDS[path]
            case _:
                raise AssertionError(f"a variable that no test knows: {variable}")
    # As Kubernetes does with what it knows.
    return {name: re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), str(text)) for name, text in env.items()}


def _texts(volume, path, maps, held):
    """The files of a volume: {name: text}, and their mode."""
    match volume:
        case {"configMap": {"name": name, **more}}:
            # One that others make has nothing in it here.
            source = maps.get(name, {})
        case {"secret": {"secretName": name, **more}}:
            items = more.get("items") or []
            source = {item["key"]: held.get(name, item["key"]) for item in items} or held.at(path, name)
        case {"projected": {"sources": sources, **more}}:
            texts = {}
            for inner in sources:
                if "secret" in inner:
                    inner = {"secret": {"secretName": inner["secret"]["name"], **inner["secret"]}}
                texts |= _texts(inner, path, maps, held)[0]
            return texts, more.get("defaultMode", 0o644)
        case _:
            raise AssertionError(f"a volume that no test knows: {volume}")
    items = more.get("items") or [{"key": key, "path": key} for key in source]
    return {item["path"]: source[item["key"]] for item in items}, more.get("defaultMode", 0o644)


def compose(place):
    """The services of Compose's file, with secrets drawn into `place` as it says."""
    folder = DEPLOYMENTS / "compose"
    run(folder / "secrets", env={"PATH": "/usr/bin:/bin", "SECRETS": str(place), "LUMINATE_BIN": luminate()})
    file = yaml.safe_load((folder / "compose.yaml").read_text())

    def text(kind, name):
        path = file[kind][name]["file"]
        return (Path(place) / Path(path).name if kind == "secrets" else folder / path).read_text()

    found = []
    for name, service in file["services"].items():
        user, _, group = service.get("user", "").partition(":")
        check = service.get("healthcheck", {}).get("test", [])
        workload = Workload(
            "service",
            name,
            re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]),
            service.get("entrypoint"),
            service.get("command"),
            env=service.get("environment", {}),
            user=int(user) if user else None,
            group=int(group) if group else None,
            read_only=service.get("read_only", False),
            tmpfs=[word.partition(":")[0] for word in service.get("tmpfs", [])],
            grace=float(service.get("stop_grace_period", "10s").removesuffix("s")),
            healthcheck=check[1:] or None,
        )
        for kind in ["configs", "secrets"]:
            for mount in service.get(kind, []):
                workload.files[mount["target"]] = text(kind, mount["source"])
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source in file["volumes"]:
                workload.data.append(target)
        found.append(workload)
    return found


def unit(path, configuration, held):
    """What a systemd unit starts, the server first, as far as that can be without systemd."""
    sections = {}
    for line in Path(path).read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif "=" in line and not line.startswith(("#", ";")):
            section.append(tuple(part.strip() for part in line.split("=", 1)))
    settings = {}
    for key, value in sections["Service"]:
        settings.setdefault(key, []).append(value)

    credentials = f"/run/credentials/{Path(path).name}"

    def words(value):
        return [word.replace("%d", credentials) for word in value.lstrip("-+!@:").split()]

    workload = Workload(
        "unit",
        Path(path).name,
        "luminate",
        command=words(settings["ExecStart"][0]),
        env={"CREDENTIALS_DIRECTORY": credentials},
        read_only="strict" in settings.get("ProtectSystem", []),
        grace=float(settings.get("TimeoutStopSec", ["90"])[0].removesuffix("s")),
        data=[
            f"{place}/{name}"
            for key, place in [("StateDirectory", "/var/lib"), ("LogsDirectory", "/var/log")]
            for value in settings.get(key, [])
            for name in value.split()
        ],
    )
    for value in settings.get("Environment", []):
        for assignment in value.split():
            name, _, text = assignment.strip('"').partition("=")
            workload.env[name] = text.replace("%d", credentials)
    loaded = [value.partition(":")[0] for value in settings.get("LoadCredential", [])]
    if loaded:
        # They are the service's own, whoever that is.
        workload.groups = [10001]
        workload.folders[credentials] = {name: held.get("luminate-secrets", name) for name in loaded}
        workload.modes[credentials] = 0o440
    workload.files["/etc/luminate/luminate.yaml"] = configuration
    before = [replace(workload, command=words(value)) for value in settings.get("ExecStartPre", [])]
    return [workload, *before]
