"""The Helm chart: what it renders, what it refuses, and that it says the same as the kustomization."""

import yaml

from house import chart, documents, key, kustomize

# What only a chart has. Labels say who made an object, and a checksum makes a changed configuration roll the
# pods, which `kubectl apply` leaves to `kubectl rollout restart`.
CHART_LABELS = {"app.kubernetes.io/managed-by", "helm.sh/chart"}
CHART_ANNOTATIONS = {"checksum/config"}


def plain(document):
    """An object without what only a chart has; the YAML in a ConfigMap as what it says."""

    def strip(node):
        if isinstance(node, list):
            return [strip(item) for item in node]
        if not isinstance(node, dict):
            return node
        stripped = {name: strip(value) for name, value in node.items()}
        for field, names in (("labels", CHART_LABELS), ("annotations", CHART_ANNOTATIONS)):
            if isinstance(stripped.get(field), dict):
                stripped[field] = {n: v for n, v in stripped[field].items() if n not in names}
        return stripped

    document = strip(document)
    if document["kind"] == "ConfigMap":
        document["data"] = {
            name: yaml.safe_load(text) if name.endswith(".yaml") else text for name, text in document["data"].items()
        }
    return document


def objects(text):
    return {key(document): plain(document) for document in documents(text)}


def test_the_chart_says_what_the_kustomization_says():
    # Helm needs the namespace to be there before it installs, so it is rendered only when asked for.
    assert objects(chart("--set", "namespace.create=true").stdout) == objects(kustomize("."))
    assert {key(d)[0] for d in documents(kustomize("."))} - {key(d)[0] for d in documents(chart().stdout)} == {"Namespace"}


def test_standalone_the_chart_says_what_the_overlay_says():
    rendered = chart("--set", "namespace.create=true,mode=standalone").stdout
    assert objects(rendered) == objects(kustomize("overlays/standalone"))
