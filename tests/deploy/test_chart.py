"""The Helm chart: what it renders, what it refuses, and that it says the same as the kustomization."""

import functools
import json
import os
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

from house import (
    APIS, CHART, DEPLOYMENTS, ROOT, TOOLS, VENV, chart, documents, key, kustomize, luminate, missing, pod_templates,
    program, run,
)

# What only a chart has. Labels say who made an object, a checksum makes a changed configuration roll the pods, which
# `kubectl apply` leaves to others, and KEDA can take the autoscaler's place.
CHART_LABELS = {"app.kubernetes.io/managed-by", "helm.sh/chart"}
CHART_ANNOTATIONS = {"checksum/config", "validations.keda.sh/hpa-ownership"}

# Each set of values that comes with the chart, by the name of its file; "" is the defaults.
VALUES = ["", *(str(p.relative_to(CHART)) for p in sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*.yaml")]))]


def values(name):
    return ["-f", str(CHART / name)] if name else []


@functools.cache
def text(name, *more):
    return chart(*values(name), *more).stdout


def rendered(name, *more):
    return documents(text(name, *more))


def one(objects, kind, name=None):
    (found,) = [d for d in objects if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return found


def workload(objects):
    (found,) = [d for d in objects if d["kind"] in ("Deployment", "StatefulSet") and "canary" not in d["metadata"]["name"]]
    return found


def config(objects):
    (found,) = [d for d in objects if d.get("kind") == "ConfigMap" and d["metadata"]["name"].endswith("-config")]
    return yaml.safe_load(found["data"]["luminate.yaml"])


# ---- the same as the kustomization


def plain(document):
    """An object without what only a chart has; the YAML in a ConfigMap as what it says."""

    def strip(node):
        if isinstance(node, list):
            return [strip(item) for item in node]
        if not isinstance(node, dict):
            return node
        stripped = {name: strip(value) for name, value in node.items()}
        for field, names in (("labels", CHART_LABELS), ("annotations", CHART_ANNOTATIONS)):
            kept = {n: v for n, v in (stripped.pop(field, None) or {}).items() if n not in names}
            if kept:
                stripped[field] = kept
        return stripped

    document = strip(document)
    if document["kind"] == "ConfigMap":
        document["data"] = {
            name: yaml.safe_load(text) if name.endswith(".yaml") else text for name, text in document["data"].items()
        }
    return document


def objects(text):
    return {key(document): plain(document) for document in documents(text)}


# Helm needs the namespace to be there before it installs, so it is rendered only when asked for; and it renders pods
# for `helm test`, which a kustomization has not.
WHOLE = ("--set", "namespace.create=true", "--skip-tests")


def test_the_chart_says_what_the_kustomization_says():
    assert objects(text("", *WHOLE)) == objects(kustomize("."))
    assert "Namespace" not in {d["kind"] for d in rendered("")}


def test_standalone_the_chart_says_what_the_overlay_says():
    assert objects(text("", *WHOLE, "--set", "mode=standalone")) == objects(kustomize("overlays/standalone"))


def test_with_redis_the_gateways_of_both_are_configured_alike(tmp_path):
    redis = ("redis.enabled=true", "redis.urls={redis://luminate-redis:6379}", "redis.passwordKey=redis-password")
    ours, theirs = objects(text("", *WHOLE, "--set", ",".join(redis))), objects(kustomize("overlays/scalable"))
    # The overlay has the Redis itself, too, and sets it by variables where the chart has one configuration.
    theirs = {name: d for name, d in theirs.items() if d["metadata"]["labels"].get("app.kubernetes.io/component") != "redis"}
    effective = []
    for side in (ours, theirs):
        container = side["Deployment", "luminate", "luminate"]["spec"]["template"]["spec"]["containers"][0]
        variables = {variable["name"]: variable["value"] for variable in container.pop("env", [])}
        given = side.pop(("ConfigMap", "luminate", "luminate-config"))["data"]["luminate.yaml"]
        effective.append(in_effect(tmp_path, given, variables))
        del side["NetworkPolicy", "luminate", "luminate"]
        side.pop(("NetworkPolicy", "luminate", "luminate-to-redis"), None)
    assert effective[0] == effective[1] and effective[0]["redis"]["rate_limit"]["enabled"] is True
    # Which would be gone with a Redis that has no disk.
    assert effective[0]["redis"]["key_store"]["enabled"] is False
    assert ours == theirs


# ---- what the binary says


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    """What pods have mounted, as files."""
    folder = tmp_path_factory.mktemp("mounts")
    secrets = {"jwt-secret": "a-secret-of-32-bytes-for-the-test-only", "clickhouse-password": "p", "redis-password": "p",
               "url": "redis://redis:6379", "password": "p"}
    for name in ("luminate-secrets", "luminate-clickhouse", "luminate-redis", "luminate-tls", "luminate"):
        (folder / name).mkdir()
    for name in ("luminate-secrets", "luminate-clickhouse", "luminate-redis"):
        for file, content in secrets.items():
            (folder / name / file).write_text(content)
    tls = folder / "luminate-tls"
    run(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", tls / "tls.key", "-out", tls / "tls.crt", "-days", "2", "-subj", "/CN=luminate")
    (tls / "ca.crt").write_text((tls / "tls.crt").read_text())
    return folder


def moved(given, folder):
    """A configuration whose files are in a folder instead of in /etc."""
    return json.loads(json.dumps(given).replace('"/etc/luminate', f'"{folder}/luminate'))


def in_effect(folder, given, variables):
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(given))
    clean = {"PATH": os.environ["PATH"], **variables}
    printed = run(luminate(), "config", "print", "--config.file", path, env=clean).stdout
    # What comes from a variable is printed as the text it was.
    return yaml.safe_load(re.sub("'(true|false)'", r"\1", printed))


@pytest.mark.parametrize("name", VALUES)
def test_the_binary_takes_the_configuration(name, mounts, tmp_path):
    (found,) = [d for d in rendered(name) if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-config")]
    (mounts / "luminate" / "overrides.yaml").write_text(found["data"]["overrides.yaml"])
    path = tmp_path / "luminate.yaml"
    path.write_text(yaml.safe_dump(moved(config(rendered(name)), mounts)))
    container = workload(rendered(name))["spec"]["template"]["spec"]["containers"][0]
    variables = {v["name"]: v["value"] for v in container.get("env", []) if "value" in v}
    run(luminate(), "check", "config", path, env={"PATH": os.environ["PATH"], **variables})


@pytest.mark.parametrize("name", VALUES)
def test_the_binary_takes_every_command_line(name):
    ours = [c for d in rendered(name) for t in pod_templates(d)
            for c in t["spec"]["containers"] + t["spec"].get("initContainers", []) if "/luminate" in c["image"]]
    assert ours
    for container in ours:
        # What is wrong before it is told before the help is.
        run(luminate(), *container["args"], "--help")
    assert run(luminate(), *ours[0]["args"], "--replicas=3", "--help", check=False).returncode == 2


@pytest.mark.parametrize("mode", ["scalable", "standalone"])
def test_the_commands_of_the_notes_do_what_they_say(mode, mounts, tmp_path):
    # Where notes are said, without a cluster: by a chart with them as an object.
    copy = tmp_path / "luminate"
    run("cp", "-R", CHART, copy)
    notes = copy / "templates" / "NOTES.txt"
    (copy / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes.read_text() + "{{ end }}")
    notes.write_text("")
    (copy / "templates" / "shown.yaml").write_text('kind: Shown\ntext: {{ include "notes" . | toJson }}\n')
    helm = [program("helm"), "template", "luminate", copy, "-n", "luminate", "--set", f"mode={mode}"]
    said = yaml.safe_load(run(*helm, "-s", "templates/shown.yaml").stdout)["text"]
    commands = [words.split() for words in re.findall(r"-- luminate ([^)\n]*(?:\\\n[^)\n]*)*)", said.replace("\\\n", " "))]
    assert [words[:2] for words in commands][-1] == ["token", "create"]
    assert (["schema", "apply"] in [words[:2] for words in commands]) == (mode == "scalable")
    for words in commands:
        run(luminate(), *words, "--help")
    path = tmp_path / "luminate.yaml"
    path.write_text(yaml.safe_dump(moved(config(documents(run(*helm).stdout)), mounts)))
    words = [word.replace("/etc/luminate/luminate.yaml", str(path)) for word in commands[-1]]
    token = run(luminate(), *words).stdout.strip()
    secret = mounts / "luminate-secrets" / "jwt-secret"
    assert "team-a" in run(luminate(), "token", "inspect", "--secret-file", secret, input=token).stdout


# ---- custom resources


def crds(resources):
    """What is wrong with custom resources: their index and a text each. Dear: the compiler reads all of their types."""
    modules = TOOLS / "crds" / "node_modules"
    if not modules.exists():
        missing("types of custom resources")
    return json.loads(run(program("node"), ROOT / "tests/deploy/crds.mjs", modules, input=json.dumps(resources)).stdout)


def test_every_custom_resource_is_valid_to_the_letter_and_what_is_not_is_found():
    ours = [d for name in VALUES for d in rendered(name) if d["apiVersion"] in APIS]
    resources = {d["kind"]: d for d in ours}
    assert resources.keys() >= {"ServiceMonitor", "PodMonitor", "ScaledObject", "HTTPRoute"}
    rule = {"apiVersion": APIS[0], "kind": "PrometheusRule", "metadata": {"name": "a"},
            "spec": {"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "1"}]}]}}
    right, wrong = [*ours, rule], []
    for document, path, field, value in [
        (resources["ServiceMonitor"], ("spec", "endpoints", 0), "intervall", "15s"),
        (resources["ServiceMonitor"], ("spec", "endpoints", 0), "interval", "15 seconds"),
        (resources["PodMonitor"], ("spec", "podMetricsEndpoints", 0), "porrt", "metrics"),
        (resources["ScaledObject"], ("spec",), "minReplicas", 3),
        (resources["ScaledObject"], ("spec",), "minReplicaCount", "3"),
        (resources["HTTPRoute"], ("spec", "rules", 0, "matches", 0, "path"), "type", "Prefix"),
        (resources["HTTPRoute"], ("spec", "rules", 0), "backends", []),
        (rule, ("spec", "groups", 0, "rules", 0), "forr", "5m"),
    ]:
        broken = json.loads(json.dumps(document))
        node = broken
        for step in path:
            node = node[step]
        node[field] = value
        wrong.append(broken)
    found = dict(crds(right + wrong))
    assert not (bad := [f"{key(d)}: {found[i]}" for i, d in enumerate(right) if i in found]), "\n".join(bad)
    assert found.keys() == set(range(len(right), len(right + wrong)))


# ---- what is refused


def refused(*arguments):
    done = chart(*arguments, check=False)
    assert done.returncode != 0 and not done.stdout, f"{arguments} was taken"
    return done.stderr


def test_the_schema_is_one_and_is_strict():
    schema = CHART / "values.schema.json"
    run(VENV / "python", "-m", "check_jsonschema", "--check-metaschema", schema)
    check = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    # A file of values is checked by itself, too, by an editor for one.
    for name in ["values.yaml", *VALUES[1:]]:
        assert not [error.message for error in check.iter_errors(yaml.safe_load((CHART / name).read_text()))], name

    def look(node, path):
        if isinstance(node, dict):
            if "properties" in node and node.get("type") == "object":
                assert node.get("additionalProperties") is False, f"{path} takes keys that nobody knows"
            for name, inner in node.items():
                look(inner, f"{path}/{name}")

    look(json.loads(schema.read_text()), "")


@pytest.mark.parametrize("given, said", [
    ("replicas=5", "'replicas' not allowed"),
    ("autoscaling.minReplica=5", "'minReplica' not allowed"),
    ("resources.request.cpu=1", "'request' not allowed"),
    ("config.storage.clickhouse.adresses={a}", "'adresses' not allowed"),
    ("config.server.limits.max_bdy_bytes=1", "'max_bdy_bytes' not allowed"),
    ("overrides.team-a.samples_per_secnd=1", "'samples_per_secnd' not allowed"),
    ("metrics.serviceMonitor.intervall=15s", "'intervall' not allowed"),
    ("autoscaling.maxReplicas=ten", "got string, want integer"),
    ("autoscaling.enabled=maybe", "got string, want"),
    ("clickhouse.addresses=clickhouse:8123", "got string, want array"),
    ("config.self_scrape.enabled=perhaps", "got string, want"),
    ("config.query=fast", "got string, want"),
    ("podAntiAffinity=strict", "must be one of 'soft', 'hard', 'none'"),
    ("config.server=null", "got null, want object"),
    ("mode=cluster", "must be one of 'scalable', 'standalone'"),
    ("image.repository=luminate:latest", "does not match pattern"),
    ("image.digest=sha256:abc", "does not match pattern"),
    ("persistence.size=much", "does not match pattern"),
    ("service.port=80000", "maximum"),
    ("extraArgs={serve}", "does not match pattern"),
])
def test_the_schema_refuses(given, said):
    # The name of a key stands between quotes, which ones depends on Helm.
    assert said.replace("'", "") in refused("--set", given).replace("'", "").replace('"', "")


@pytest.mark.parametrize("given, said", [
    (["keda.enabled=true", "keda.prometheusAddress=http://p", "autoscaling.enabled=true"], "the two would fight"),
    (["keda.enabled=true"], "keda.prometheusAddress: is empty"),
    (["keda.enabled=true", "keda.prometheusAddress=http://p", "keda.inFlightRequests=0", "keda.queueBytes=0"], "neither"),
    (["mode=standalone", "replicaCount=2"], "a standalone Luminate is one pod"),
    (["mode=standalone", "autoscaling.enabled=true"], "autoscaling.enabled: is for mode: scalable"),
    (["mode=standalone", "keda.enabled=true", "keda.prometheusAddress=http://p"], "keda.enabled: is for mode: scalable"),
    (["mode=standalone", "schemaJob.enabled=true"], "schemaJob.enabled: is for mode: scalable"),
    (["mode=standalone", "backup.enabled=true", "backup.tokenSecret=a"], "backup.at: a standalone Luminate is backed up to"),
    (["mode=standalone", "backup.enabled=true", "backup.at=s3://b"], "backup.tokenSecret: is empty"),
    (["mode=standalone", "backup.enabled=true", "backup.at=s3://b", "backup.tokenSecret=a", "persistence.accessModes={ReadWriteOncePod}"], "ReadWriteOncePod"),
    (["backup.enabled=true", "backup.at=s3://b"], "is for mode: standalone"),
    (["backup.drill.enabled=true"], "backup.drill.enabled: is for mode: standalone"),
    (["config.storage.backend=embedded"], "config.storage.backend"),
    (["clickhouse.addresses=[]"], "clickhouse.addresses: is empty"),
    (["clickhouse.addresses={clickhouse:9000}"], "native protocol"),
    (["clickhouse.addresses={https://user:password@clickhouse:8443}"], "a ConfigMap is no place for it"),
    (["replicaCount=5"], "autoscaling owns the number of pods"),
    (["autoscaling.minReplicas=20"], "more than maxReplicas"),
    (["autoscaling.targetCPUUtilizationPercentage=0", "autoscaling.targetMemoryUtilizationPercentage=0"], "nothing to scale by"),
    (["ingress.hosts=[]"], "ingress.hosts: is empty"),
    (["ingress.tls.secretName="], "ingress.tls.secretName"),
    (["httpRoute.enabled=true"], "httpRoute.parentRefs: is empty"),
    (["secrets.jwtSecret=abc"], "existingSecret"),
    (["secrets.existingSecret="], "secrets.jwtSecret: is empty"),
    (["secrets.existingSecret=", "secrets.jwtSecret=your-strong-secret-here", "secrets.clickhousePassword=a"], "32 bytes"),
    (["config.auth.jwt.secret=abc"], "config.auth.jwt.secret: a ConfigMap is no place"),
    (["config.storage.clickhouse.password=abc"], "config.storage.clickhouse.password: a ConfigMap"),
    (["config.redis.password=abc"], "config.redis.password: a ConfigMap"),
    (["config.redis.url=redis://:abc@redis"], "a ConfigMap is no place"),
    (["extraEnv[0].name=LUMINATE_STORAGE__CLICKHOUSE__PASSWORD", "extraEnv[0].value=abc"], "valueFrom"),
    (["extraEnv[0].name=REDIS_URL", "extraEnv[0].value=redis://:abc@redis"], "valueFrom"),
    (["clickhouse.existingSecret=a", "secrets.existingSecret=", f"secrets.jwtSecret={'s' * 32}", "secrets.clickhousePassword=b"], "take one"),
    (["redis.enabled=true"], "neither urls nor urlKey"),
    (["redis.enabled=true", "redis.urls={redis://a}", "redis.urlKey=redis-url"], "take one"),
    (["redis.enabled=true", "redis.urls={redis://:abc@redis}"], "a ConfigMap is no place"),
    (["redis.urls={redis://a}"], "enabled is false"),
    (["redis.enabled=true", "redis.urls={redis://a}", "redis.rateLimit=false"], "nothing would be kept"),
    (["tls.enabled=true"], "without a certificate"),
    (["tls.existingSecret=a"], "enabled is false"),
    (["tls.enabled=true", "tls.certificate=a", "tls.key=b", "tls.clientAuth=required"], "needs clientCa"),
    (["tls.enabled=true", "tls.existingSecret=a", "tls.clientAuth=required"], "need a certificate to show"),
    (["tls.enabled=true", "tls.certificate=a", "tls.key=b", "tls.serverCaKey=ca.crt"], "has no ca.crt"),
    (["config.server.tls.cert_file=/a"], "set tls"),
    (["config.server.listen=0.0.0.0:9090"], "port 8080"),
    (["config.server.shutdown.grace=50s"], "set shutdown.graceSeconds"),
    (["shutdown.graceSeconds=50"], "pods would be killed with requests in them"),
    (["rollingUpdate.maxSurge=0"], "no pod could ever be replaced"),
    (["podDisruptionBudget.maxUnavailable=0"], "no node can ever be drained"),
    (["podDisruptionBudget.maxUnavailable=0%"], "no node can ever be drained"),
    (["podDisruptionBudget.minAvailable=100%"], "leaves none to spare"),
    (["clickhouse.addresses={https://clickhouse:9440/}"], "lets nobody out to port 9440"),
    (["networkPolicy.egressPorts={443}"], "lets nobody out to port 8123, where clickhouse:8123 is"),
    (["redis.enabled=true", "redis.urls={rediss://redis:6380/1}"], "lets nobody out to port 6380"),
    (["redis.enabled=true", "redis.urls={redis://redis}", "redis.port=6380"], "lets nobody out to port 6379"),
    (["podDisruptionBudget.minAvailable=3"], "leave none to spare"),
    (["podLabels.app\\.kubernetes\\.io/name=a"], "podLabels: app.kubernetes.io/name"),
    (["commonLabels.app\\.kubernetes\\.io/instance=a"], "commonLabels: app.kubernetes.io/instance"),
    (["service.loadBalancerClass=a"], "are for type: LoadBalancer"),
    (["service.nodePort=30080"], "not for type: ClusterIP"),
    (["schemaJob.enabled=true", "schemaJob.username=admin"], "schemaJob.username: and its password?"),
    (["backup.enabled=true", "backup.username=admin"], "backup.username: and its password?"),
    (["canary.enabled=true"], "canary.existingSecret: is empty"),
])
def test_what_cannot_be_meant_is_refused(given, said):
    assert said in refused(*sets(given))


def sets(given):
    return [word for value in given for word in ("--set-json" if value.endswith("=[]") else "--set", value)]


def test_everything_that_is_wrong_is_told_at_once():
    said = refused(*sets(["ingress.hosts=[]", "clickhouse.addresses=[]", "replicaCount=3"]))
    assert said.count("\n  - ") == 3


def test_a_kubernetes_that_is_too_old_is_refused():
    done = run(program("helm"), "template", "luminate", CHART, "--kube-version", "1.24.9", check=False)
    assert done.returncode != 0 and "kubeVersion" in done.stderr


# ---- what may not change, and what has to


def test_renders_are_the_same_to_the_byte():
    for name in VALUES:
        assert chart(*values(name)).stdout == text(name)


def fixed(objects):
    """What Kubernetes does not let one change of the workload, and what finds its pods."""
    main = workload(objects)
    spec = main["spec"]
    return {
        "name": main["metadata"]["name"],
        "selector": spec["selector"],
        "serviceName": spec.get("serviceName"),
        "podManagementPolicy": spec.get("podManagementPolicy"),
        "volumes": [(t["metadata"]["name"], t["metadata"]["labels"]) for t in spec.get("volumeClaimTemplates", [])],
        "service": [d["spec"]["selector"] for d in objects if d["kind"] == "Service"],
    }


@pytest.mark.parametrize("mode", ["scalable", "standalone"])
def test_values_do_not_change_what_selects_pods(mode, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("""
        commonLabels: {team: a}
        podLabels: {tier: b}
        image: {tag: 9.9.9}
        metrics: {serviceMonitor: {enabled: true}}
        config: {log: {level: debug}}
        persistence: {size: 100Gi, annotations: {a: b}}
    """)
    both = ("--set", f"mode={mode}")
    before, after = fixed(rendered("", *both)), fixed(documents(chart("-f", other, *both).stdout))
    assert before == after
    newer = tmp_path / "luminate"
    run("cp", "-R", CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(about.read_text().replace("0.1.0", "0.2.0"))
    upgraded = documents(run(program("helm"), "template", "luminate", newer, "-n", "luminate", *both).stdout)
    assert fixed(upgraded) == before
    # Nor does a new version of the chart alone give pods another label, which would replace them.
    assert workload(upgraded)["spec"]["template"]["metadata"] == workload(rendered("", *both))["spec"]["template"]["metadata"]


def test_pods_are_replaced_when_their_configuration_changed_and_not_for_overrides():
    def checksum(*more):
        return workload(documents(chart(*more).stdout))["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    before = checksum()
    assert checksum("--set", "overrides.team-a.samples_per_second=5") == before
    assert checksum("--set", "commonLabels.team=a") == before
    assert checksum("--set", "config.query.timeout=1m") != before
    assert checksum("--set", "clickhouse.database=other") != before


def test_pods_are_replaced_when_a_password_of_the_chart_changed():
    def annotations(*more):
        return workload(rendered("ci/secrets.yaml", *more))["spec"]["template"]["metadata"]["annotations"]

    before, after = annotations(), annotations("--set", "secrets.clickhousePassword=another")
    assert before.pop("checksum/secrets") != after.pop("checksum/secrets") and before == after


def test_secrets_are_in_secrets_alone():
    given = yaml.safe_load((CHART / "ci/secrets.yaml").read_text())
    secret = [v for v in given["secrets"].values() if v] + [given["tls"]["key"].splitlines()[1]]
    for document in rendered("ci/secrets.yaml"):
        inside = [s for s in secret if s in json.dumps(document)]
        assert document["kind"] == "Secret" or not inside, f"{key(document)} has {inside}"
    made = {d["metadata"]["name"]: d for d in rendered("ci/secrets.yaml") if d["kind"] == "Secret"}
    assert made["luminate-secrets"]["stringData"] == {
        "jwt-secret": given["secrets"]["jwtSecret"],
        "clickhouse-password": given["secrets"]["clickhousePassword"],
        "redis-password": given["secrets"]["redisPassword"],
    }
    assert not [d for d in rendered("") if d["kind"] == "Secret"]
    # Not by way of a variable either, whose name says what it is.
    for name in VALUES:
        for document in rendered(name):
            for template in pod_templates(document):
                for container in template["spec"]["containers"]:
                    for variable in container.get("env", []):
                        assert "value" not in variable or "PASSWORD" not in variable["name"]


# ---- the parts


def test_autoscaled_deployments_say_no_number_of_pods():
    for name in VALUES:
        kinds = {d["kind"] for d in rendered(name)}
        scaled = kinds & {"HorizontalPodAutoscaler", "ScaledObject"}
        main = workload(rendered(name))
        assert len(scaled) <= 1
        assert ("replicas" in main["spec"]) == (not scaled), name


def test_keda_scales_within_the_same_bounds_and_as_fast_as_the_autoscaler():
    keda = ("--set", "keda.enabled=true,keda.prometheusAddress=http://p:9090")
    scaled, hpa = one(rendered("", *keda), "ScaledObject")["spec"], one(rendered(""), "HorizontalPodAutoscaler")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"]) == (3, 10)
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert scaled["scaleTargetRef"] == hpa["scaleTargetRef"]
    queries = [t["metadata"]["query"] for t in scaled["triggers"] if t["type"] == "prometheus"]
    assert [q[: q.index("{")] for q in queries] == ["sum(luminate_http_in_flight_requests", "sum(luminate_clickhouse_queue_bytes"]
    assert {t["type"]: t["metadata"]["value"] for t in scaled["triggers"] if t["type"] != "prometheus"} == {"cpu": "70", "memory": "80"}


def test_keda_counts_requests_of_endpoints_that_there_are():
    (query,) = [t["metadata"]["query"] for t in one(rendered("ci/keda.yaml"), "ScaledObject")["spec"]["triggers"]
                if t.get("name") == "in-flight-requests"]
    known = set(re.findall(r'Self::\w+ => "(\w+)"', (ROOT / "src/gateway/request.rs").read_text()))
    counted = set(re.search(r'endpoint=~"([^"]*)"', query)[1].split("|"))
    # All but what is about ourselves.
    assert counted == known - {"status", "admin", "health", "metrics", "other"}


def test_expressions_of_keda_are_promql(tmp_path):
    for name in ("ci/keda.yaml", ""):
        more = () if name else ("--set", "keda.enabled=true,keda.prometheusAddress=http://p:9090")
        triggers = one(rendered(name, *more), "ScaledObject")["spec"]["triggers"]
        rules = [{"record": "a", "expr": t["metadata"]["query"]} for t in triggers if t["type"] == "prometheus"]
        file = tmp_path / "rules.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": rules[:1]}, {"name": "b", "rules": rules[1:]}]}))
        run(program("promtool"), "check", "rules", file)


def matches(selector, labels):
    def holds(rule):
        there = rule["key"] in labels
        return {"Exists": there, "DoesNotExist": not there,
                "In": labels.get(rule["key"]) in rule.get("values", ())}[rule["operator"]]

    return selector.get("matchLabels", {}).items() <= labels.items() and all(map(holds, selector.get("matchExpressions", [])))


@pytest.mark.parametrize("name", [n for n in VALUES if "ServiceMonitor" in text(n)])
def test_monitors_find_the_port_of_the_metrics(name):
    found = rendered(name)
    monitor = one(found, "ServiceMonitor")["spec"]
    (service,) = [d for d in found if d["kind"] == "Service" and matches(monitor["selector"], d["metadata"]["labels"])]
    template = workload(found)["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    ports = {p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]}
    assert ports[endpoint["targetPort"]] == 8081
    assert endpoint["relabelings"][0] == {"targetLabel": "job", "replacement": "luminate"}
    # Not twice.
    assert "prometheus.io/scrape" not in template["metadata"].get("annotations", {})
    for monitor in (d["spec"] for d in found if d["kind"] == "PodMonitor"):
        (pods,) = [t for d in found for t in pod_templates(d) if matches(monitor["selector"], t["metadata"].get("labels", {}))]
        assert monitor["podMetricsEndpoints"][0]["port"] in [p["name"] for p in pods["spec"]["containers"][0]["ports"]]


def test_only_who_serves_is_served_and_counted():
    for name in VALUES:
        found = rendered(name)
        serving = workload(found)["metadata"]["name"]
        selectors = [d["spec"]["selector"] for d in found if d["kind"] == "Service"]
        selectors += [d["spec"]["selector"]["matchLabels"] for d in found if d["kind"] == "PodDisruptionBudget"]
        for document in found:
            for template in pod_templates(document):
                labels = template["metadata"].get("labels", {})
                is_it = document["kind"] in ("Deployment", "StatefulSet") and document["metadata"]["name"] == serving
                assert all((s.items() <= labels.items()) == is_it for s in selectors), (name, key(document))


def test_every_pod_has_a_network_policy_of_its_own_where_the_namespace_is_closed():
    for name in VALUES:
        found = rendered(name)
        policies = [d["spec"]["podSelector"] for d in found if d["kind"] == "NetworkPolicy" and d["spec"]["podSelector"]]
        for document in found:
            for template in pod_templates(document):
                fitting = [p for p in policies if matches(p, template["metadata"].get("labels", {}))]
                assert len(fitting) == 1, (name, key(document))


def test_the_password_of_clickhouse_may_be_in_a_secret_of_its_own():
    found = rendered("ci/everything-else.yaml")
    file = config(found)["storage"]["clickhouse"]["password_file"]
    templates = [t for d in found if "test" not in d["metadata"]["name"] for t in pod_templates(d)]
    assert len(templates) == 2
    for template in templates:
        volumes = {v["name"]: v["secret"] for v in template["spec"]["volumes"] if "secret" in v}
        (mount,) = [m for c in template["spec"]["containers"] for m in c.get("volumeMounts", []) if file.startswith(m["mountPath"] + "/")]
        assert volumes[mount["name"]]["secretName"] == "clickhouse-gateways"
        assert [mount["mountPath"] + "/" + item["path"] for item in volumes[mount["name"]]["items"]] == [file]


def test_jobs_get_out_where_gateways_do():
    policies = {d["metadata"]["name"]: d["spec"]["egress"] for d in rendered("ci/everything-else.yaml") if d["kind"] == "NetworkPolicy"}
    redis = {"ports": [{"port": 6379, "protocol": "TCP"}]}
    assert policies["metrics-gateway-schema"] == [rule for rule in policies["metrics-gateway"] if rule != redis]


def test_with_certificates_demanded_of_clients_probes_go_where_none_is():
    found = rendered("ci/secrets.yaml")
    container = workload(found)["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert (container[probe]["httpGet"]["port"], container[probe]["httpGet"]["scheme"]) == ("admin", "HTTPS")
    assert one(found, "Ingress")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    assert one(found, "ServiceMonitor")["spec"]["endpoints"][0]["scheme"] == "https"


def test_the_tables_are_made_before_all_else_and_with_what_is_there_then():
    found = rendered("ci/secrets.yaml", "--set", "schemaJob.existingSecret=,schemaJob.username=")
    hooks = {key(d): d for d in found if "pre-install" in d["metadata"].get("annotations", {}).get("helm.sh/hook", "")}
    job = hooks["Job", "luminate", "luminate-schema"]
    for volume in job["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", "luminate", volume["configMap"]["name"]) in hooks
        elif volume["name"] == "secrets":
            secret = hooks["Secret", "luminate", volume["secret"]["secretName"]]
            # And nothing that it does not need.
            assert list(secret["stringData"]) == [i["key"] for i in volume["secret"]["items"]] == ["clickhouse-password"]
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_sizes_are_those_of_the_deployment_guide():
    assert workload(rendered("values-small.yaml"))["spec"]["replicas"] == 3
    for size, bounds in {"medium": (5, 7), "large": (8, 10)}.items():
        hpa = one(rendered(f"values-{size}.yaml"), "HorizontalPodAutoscaler")["spec"]
        assert (hpa["minReplicas"], hpa["maxReplicas"]) == bounds


def test_objects_of_ones_own_are_templates():
    found = {d["metadata"]["name"]: d["data"] for d in rendered("ci/everything-else.yaml") if d["kind"] == "ConfigMap"}
    assert found["metrics-gateway-extra"] == {"url": "http://metrics-gateway-svc.luminate:443"}
    assert found["luminate-text"] == {"mode": "scalable"}


def test_a_key_with_nothing_below_is_an_empty_one(tmp_path):
    empty = ["config", "overrides", "commonLabels", "podLabels", "podAnnotations", "affinity", "nodeSelector", "tolerations",
             "extraEnv", "extraArgs", "extraVolumes", "extraObjects"]
    file = tmp_path / "values.yaml"
    file.write_text("".join(f"{name}:\n" for name in empty) + "ingress: {annotations: }\n")
    found = documents(chart("-f", file).stdout)
    assert config(found) == config(rendered("")) and "annotations" not in one(found, "Ingress")["metadata"]
    (overrides,) = [d["data"]["overrides.yaml"] for d in found if d["kind"] == "ConfigMap" and "overrides.yaml" in d["data"]]
    assert yaml.safe_load(overrides) == {"overrides": {}}


def test_large_numbers_stay_numbers():
    assert config(rendered("ci/everything-else.yaml"))["query"]["max_samples"] == 50000000


def test_names_follow_the_release(tmp_path):
    found = documents(run(program("helm"), "template", "team-a", CHART, "-n", "a").stdout)
    assert {d["metadata"]["name"] for d in found if d["metadata"]["name"] != "default-deny"} == {
        "team-a-luminate", "team-a-luminate-config", "team-a-luminate-svc", "team-a-luminate-hpa",
        "team-a-luminate-test", "team-a-luminate-test-health",
    }
    assert {d["metadata"]["namespace"] for d in found} == {"a"}


# ---- alerts, dashboards, README


def test_what_the_chart_says_again_is_what_is_said_elsewhere():
    done = subprocess.run([sys.executable, DEPLOYMENTS / "helm/sync", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run `make helm-sync`:\n{done.stdout}{done.stderr}"


def test_the_chart_is_sound(tmp_path):
    for name in VALUES:
        run(program("helm"), "lint", "--strict", CHART, *values(name))
    run(program("helm"), "package", CHART, "--destination", tmp_path)
    packaged = run("tar", "-tzf", *tmp_path.glob("luminate-0.1.0.tgz")).stdout.split()
    assert "luminate/values.schema.json" in packaged and not [p for p in packaged if "/ci/" in p]


def test_rules_are_rendered_as_they_are():
    files = sorted((DEPLOYMENTS / "monitoring" / "alerts").glob("*.yaml"))
    if not files:
        missing("deployments/monitoring/alerts")
    made = {d["metadata"]["name"]: d["spec"] for d in rendered("ci/keda.yaml") if d["kind"] == "PrometheusRule"}
    assert made == {f"luminate-{file.stem}": yaml.safe_load(file.read_text()) for file in files}


def test_alerts_can_be_left_out():
    some = [r["alert"] for d in rendered("ci/keda.yaml") if d["kind"] == "PrometheusRule"
            for g in d["spec"]["groups"] for r in g["rules"] if "alert" in r]
    if not some:
        missing("deployments/monitoring/alerts")
    left = text("ci/keda.yaml", "--set", f"metrics.prometheusRule.disabledAlerts={{{some[0]}}}")
    assert f"alert: {some[0]}\n" in text("ci/keda.yaml") and f"alert: {some[0]}\n" not in left
    assert f"alert: {some[1]}\n" in left


def test_dashboards_are_rendered_as_they_are():
    files = sorted((DEPLOYMENTS / "monitoring" / "dashboards").glob("*.json"))
    if not files:
        missing("deployments/monitoring/dashboards")
    made = [d for d in rendered("ci/keda.yaml") if d["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    assert {n: json.loads(t) for d in made for n, t in d["data"].items()} == {
        f"luminate-{file.name}": json.loads(file.read_text()) for file in files
    }
