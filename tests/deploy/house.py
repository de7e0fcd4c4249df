"""What the tests of the deployments share: where things are, and the programs they are checked with."""

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
KUBERNETES = DEPLOYMENTS / "kubernetes"
CHART = DEPLOYMENTS / "helm" / "luminate"
TOOLS = Path(os.environ.get("LUMINATE_DEPLOY_TOOLS", "/nonexistent"))
VENV = TOOLS / "venv" / "bin"

# The oldest that is served, one between, and the newest whose schemas there are.
VERSIONS = ["1.25", "1.29", "1.37"]

# What clusters have beside Kubernetes' own, so that templates that ask for it are rendered.
APIS = ["monitoring.coreos.com/v1", "keda.sh/v1alpha1", "gateway.networking.k8s.io/v1"]


def missing(what):
    """Skips the test, or fails it where nothing may be skipped."""
    if os.environ.get("LUMINATE_TEST_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and nothing may be skipped", pytrace=False)
    pytest.skip(f"{what} is missing")


def program(name):
    """The path of a program: of what `setup` installed, else of the system."""
    for place in (TOOLS / "bin" / name, VENV / name):
        if place.exists():
            return str(place)
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") or missing(name)


def oldest(name):
    """The path of the program as the oldest Kubernetes that we deploy to has it: helm or kubectl."""
    path = TOOLS / "oldest" / name
    return str(path) if path.exists() else missing(f"an old {name}")


def run(*command, check=True, **options):
    """Runs a command and gives what it said; fails the test with that if the command fails."""
    options.setdefault("cwd", ROOT)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return done


def free_port():
    """A port that nobody listens on now, and that no connection is given before who wants it has it."""
    while True:
        port = random.randrange(18_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def luminate():
    """The binary under test."""
    path = Path(os.environ.get("LUMINATE_BIN", ROOT / "target" / "debug" / "luminate"))
    return str(path) if path.exists() else missing(f"{path}: run `cargo build`")


def documents(text):
    """The objects of a YAML stream."""
    # Ten times as fast, where PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, Loader=loader) if document]


def kustomize(folder):
    """What a folder of deployments/kubernetes renders to, as text."""
    return run(program("kubectl"), "kustomize", KUBERNETES / folder).stdout


def chart(*arguments, check=True):
    """What the chart renders to: `chart("-f", file, "--set", "a=b")` gives the finished `helm template`."""
    apis = [word for api in APIS for word in ("--api-versions", api)]
    return run(
        program("helm"), "template", "luminate", CHART, "--namespace", "luminate", "--kube-version", "1.33.0",
        *apis, *arguments, check=check,
    )


def key(document):
    """What tells objects apart."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def renders():
    """Everything that is rendered to Kubernetes objects: its name and the text."""
    yield "kubernetes", kustomize(".")
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        yield f"kubernetes/overlays/{overlay.name}", kustomize(overlay)
    if CHART.exists():
        yield "helm", chart().stdout
        for values in sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*.yaml")]):
            yield f"helm/{values.name}", chart("-f", values).stdout


def pod_templates(document):
    """The pod templates in an object."""
    match document["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            yield document["spec"]["template"]
        case "CronJob":
            yield document["spec"]["jobTemplate"]["spec"]["template"]
        case "Pod":
            yield document
