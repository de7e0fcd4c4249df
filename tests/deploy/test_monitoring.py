"""Alerts that begin when they should, dashboards on which nothing is dead, and a runbook for each alert."""

import functools
import json
import math
import os
import re
import subprocess
import sys
import time

import pytest
import yaml

from fleet import Fleet, call, until
from house import DEPLOYMENTS, ROOT, luminate, program, run

MONITORING = DEPLOYMENTS / "monitoring"
ALERTS = sorted((MONITORING / "alerts").glob("*.yaml"))
TESTS = sorted((MONITORING / "tests").glob("*.yaml"))
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
RUNBOOK = "https://github.com/luminate/luminate/blob/main/deployments/monitoring/runbook.md"

METRICS_HEAD = """\
# Metrics

What `/metrics` tells, by parts. It is on the admin port (8081; on the only port where there is no other) and asks for
no token there. Which parts there are depends on the configuration: `clickhouse` and `redis` where they are used, `wal`,
`head`, `flush`, `compaction`, `disk` and `recovery` with the embedded store, `tls` with certificates; `canary` is told
by `luminate admin canary`. No metric carries a tenant.

This page is written by a test from what runs.
"""

# Names of metrics, wherever they are written; what ends in an underscore or a star is a family of them.
METRIC = re.compile(r"\b(?:(?:luminate|kube)_[a-z0-9_]*[a-z0-9]|job:luminate_\w+:\w+)\b(?!_?\*)")


def rules():
    """Every rule of every file."""
    return [rule for path in ALERTS for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels():
    """Every panel that shows something: its dashboard, itself."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                yield path.stem, panel


def test_rules_are_what_prometheus_reads():
    run(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *ALERTS)


def test_alerts_begin_when_they_should():
    # At once: each has its own minutes, and most time goes into starting.
    running = [
        (path, subprocess.Popen([program("promtool"), "test", "rules", path], stdout=subprocess.PIPE, text=True))
        for path in TESTS
    ]
    said = [(path.name, process.communicate()[0], process.returncode) for path, process in running]
    assert all(code == 0 for *_, code in said), "\n".join(text for _, text, code in said if code)


def test_every_alert_begins_and_nearly_begins_in_a_test():
    begins, nearly = set(), set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (begins if check["exp_alerts"] else nearly).add(check["alertname"])
    assert begins == nearly == set(alerts())


def test_alerts_say_what_whoever_is_woken_needs():
    for name, alert in alerts().items():
        assert name.startswith("Luminate")
        assert set(alert["labels"]) == {"severity"} and alert["labels"]["severity"] in (
            "critical",
            "warning",
            "info",
        ), name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
        assert "tenant=" not in alert["expr"] and "tenant)" not in alert["expr"], name
    assert len(alerts()) == sum("alert" in rule for rule in rules()), "a name is there twice"


def sections():
    """The runbook's headings by their anchors, with what stands below each."""
    text = (MONITORING / "runbook.md").read_text()
    parts = re.split(r"^#+ (.+)$", text, flags=re.M)
    anchors = [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in parts[1::2]]
    assert len(anchors) == len(set(anchors)), "a heading is there twice"
    return text, dict(zip(anchors, parts[2::2]))


def test_every_alert_has_its_page_in_the_runbook():
    text, told = sections()
    names = {name.lower() for name in alerts()}
    assert {anchor for anchor in told if anchor.startswith("luminate")} == names
    for name in names:
        parts = re.findall(r"^\* \*\*(\w+)\.\*\* \S", told[name], re.M)
        assert parts == ["Meaning", "Impact", "Check", "Fix", "Escalate"], name
    linked = re.findall(r"\]\(#([^)]+)\)", text)
    assert linked and not set(linked) - set(told)


def test_alerts_that_are_named_exist():
    pages = [*MONITORING.glob("*.md"), *(DEPLOYMENTS / "docs").glob("*.md"), DEPLOYMENTS / "README.md"]
    named = {(path.name, name) for path in pages for name in re.findall(r"\bLuminate[A-Z]\w+", path.read_text())}
    assert named and not sorted((where, name) for where, name in named if name not in alerts())


@functools.cache
def helped(*words):
    """What a command says of itself; none if there is no such command."""
    done = run(luminate(), *words, "--help", check=False)
    return done.stdout if done.returncode == 0 else None


def commands_of(text):
    """What it tells to type: lines of blocks, and code in sentences."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", sentences)]
    return [line.split(" #")[0] for block in blocks for line in block.splitlines()] + spans


def test_the_commands_of_the_runbook_are_ours():
    tried = 0
    for command in commands_of(sections()[0]):
        for words in re.findall(r"(?:^|-- |\d )luminate ((?:[a-z]|--).*)", command):
            words, path = words.split(), []
            while (
                words and f"\n  {words[0]} " in (helped(*path) or "").partition("Commands:")[2].partition("Options:")[0]
            ):
                path.append(words.pop(0))
            assert path, f"luminate {command}: there is no such command"
            options = {word for word in words if word.startswith("--")}
            unknown = {
                option for option in options if f"{option} " not in helped(*path) and f"{option}\n" not in helped(*path)
            }
            assert not unknown, f"{command}: {unknown}"
            tried += 1
    assert tried > 20


def test_the_runbook_names_what_there_is():
    """Keys of the configuration, events of the log, files and objects."""
    text = " ".join(commands_of(sections()[0]))
    keys, path = set(), []
    for line in run(luminate(), "config", "print").stdout.splitlines():
        if found := re.match(r"( *)([a-z_]+):", line):
            path[len(found[1]) // 2 :] = [found[2]]
            keys |= {".".join(path[: n + 1]) for n in range(len(path))}
    named = set(re.findall(r"(?<![\w./-])((?:server|auth|limits|storage|query|redis|audit|log)\.[a-z_.]+[a-z_])", text))
    named = {name for name in named if not name.endswith((".md", ".yaml"))}
    assert len(named) > 15 and not named - keys
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    for event in set(re.findall(r'"event":"(\w+)"', text)):
        assert f'event = "{event}"' in source, event
    said = re.findall(r"Logs[^`]* `([a-z ]{8,})`", sections()[0])
    assert len(said) >= 4
    for words in said:
        assert words in source, words
    for limit in set(re.findall(r"\b((?:max|new)_[a-z_]+)\b", text)):
        assert f'"{limit}"' in source or limit in source, limit


def test_dashboards_are_as_they_are_written():
    run(sys.executable, MONITORING / "dashboards.py", "--check")
    done = run(sys.executable, MONITORING / "dashboards.py", "--chek", check=False)
    assert done.returncode != 0 and "--check" in done.stderr


def test_dashboards_are_sound():
    uids = set()
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        assert dashboard["uid"] == f"luminate-{path.stem}" and dashboard["schemaVersion"] >= 39
        uids.add(dashboard["uid"])
        names = [variable["name"] for variable in dashboard["templating"]["list"]]
        assert names == ["datasource", "job", "instance"]
        ids, taken = set(), set()
        for panel in dashboard["panels"]:
            place, ids = panel["gridPos"], ids | {panel["id"]}
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24 and not cells & taken, (
                f"{path.stem}: {panel['title']} lies over another"
            )
            taken |= cells
            for target in panel.get("targets", []):
                assert target["datasource"]["uid"] == "${datasource}"
                assert "$__rate_interval" in target["expr"] or "rate(" not in target["expr"], target["expr"]
        assert len(ids) == len(dashboard["panels"])
    assert len(uids) == len(DASHBOARDS) >= 8


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


def with_values(expression):
    """An expression as Grafana sends it, of everything, with windows that fit scrapes a second apart."""
    for name, value in {
        "$__rate_interval": "5s",
        "$__range": "1m",
        "$__interval": "1s",
        "$job": ".*",
        "$instance": ".*",
    }.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def is_alive(series):
    """Whether there is a number to draw."""
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def test_no_panel_is_dead(fleet):
    begun = time.time()
    waiting = {(where, panel["title"], target["expr"]) for where, panel in panels() for target in panel["targets"]}
    assert len(waiting) > 150

    def all_alive():
        now = time.time()
        for where, title, expression in sorted(waiting):
            fine, answer = fleet.ask(with_values(expression), begun, now)
            assert fine, f"{where}: {title}: {expression}: {answer}"
            if is_alive(answer):
                waiting.discard((where, title, expression))
        return not waiting

    try:
        until("every panel shows something", all_alive, 180)
    except AssertionError as error:
        dead = "\n".join(f"{where}: {title}: {expression}" for where, title, expression in sorted(waiting))
        raise AssertionError(f"{error}\n{dead}") from None


def test_no_variable_is_empty(fleet):
    asked = set()
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"][1:]:
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            asked.add((with_values(selector), label))
    for selector, label in asked:

        def values(selector=selector, label=label):
            status, text = call(f"{fleet.store}/api/v1/label/{label}/values", **{"match[]": selector})
            assert status == 200, f"{selector}: {text}"
            return json.loads(text)["data"] or None

        until(f"{selector} has a {label}", values)


def names_in(fleet):
    return set(json.loads(call(f"{fleet.store}/api/v1/label/__name__/values")[1])["data"])


def test_every_rule_can_be_evaluated(fleet):
    now = time.time()
    for rule in rules():
        fine, answer = fleet.ask(rule["expr"], now - 5, now)
        assert fine, f"{rule['expr']}: {answer}"
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    until("recording rules are recorded", lambda: recorded <= names_in(fleet))
    # Prometheus takes them as they are.
    groups = json.loads(call(fleet.prometheus_url + "/api/v1/rules")[1])["data"]["groups"]
    wrong = [rule for group in groups for rule in group["rules"] if rule["health"] == "err"]
    assert not wrong and sum(len(group["rules"]) for group in groups) == len(rules())


def test_every_metric_that_is_named_is_there(fleet):
    texts = [*ALERTS, *DASHBOARDS, *MONITORING.glob("*.md"), *TESTS]
    named = {(path.name, name) for path in texts for name in METRIC.findall(path.read_text())}
    assert len(named) > 200
    lost = named

    def all_there():
        nonlocal lost
        there = names_in(fleet)
        # Names of counters and histograms without what their samples end in stand for all of these.
        there |= {name.removesuffix(suffix) for name in there for suffix in ("_total", "_bucket", "_count", "_sum")}
        lost = sorted((where, name) for where, name in named if name not in there)
        return not lost

    try:
        until("every metric that is named is there", all_there)
    except AssertionError as error:
        raise AssertionError(f"{error}: {lost}") from None


def test_metrics_are_as_prometheus_wants_them(fleet):
    for text in fleet.metrics():
        checked = run(program("promtool"), "check", "metrics", input=text, check=False)
        assert checked.returncode == 0, checked.stderr + checked.stdout
        for kind in ("TYPE", "HELP"):
            told = re.findall(rf"^# {kind} (\S+)", text, re.M)
            assert len(told) == len(set(told)), "a metric is told twice"


def reference(fleet):
    """metrics.md: what each metric is, by parts."""
    told = {}
    for text in fleet.metrics():
        for name, words in re.findall(r"^# HELP (\S+) (.+)", text, re.M):
            kind = re.search(rf"^# TYPE {name} (\w+)", text, re.M).group(1)
            samples = re.findall(rf"^{name}(?:_bucket)?{{(.*)}} ", text, re.M)
            labels = {label for sample in samples for label in re.findall(r'(\w+)="', sample)} - {"le"}
            told[name] = (kind, ", ".join(sorted(labels)), words)
    parts = {}
    for name in sorted(told):
        parts.setdefault(name.split("_")[1], []).append(name)
    lines = [METRICS_HEAD]
    for part, names in parts.items():
        lines += [f"## {part}\n", "| metric | type | labels | |", "|---|---|---|---|"]
        lines += ["| `{}` | {} | {} | {} |".format(name, *told[name]) for name in names]
        lines.append("")
    return "\n".join(lines)


def test_the_list_of_metrics_is_current(fleet):
    path, current = MONITORING / "metrics.md", reference(fleet)
    if os.environ.get("LUMINATE_TEST_GOLDEN") == "rewrite":
        path.write_text(current)
    assert path.read_text() == current, (
        "LUMINATE_TEST_GOLDEN=rewrite tests/deploy/run -k list_of_metrics writes it anew"
    )


def test_no_metric_has_a_tenant(fleet):
    for text in fleet.metrics():
        assert not re.search(r'[{,]tenant="', text)
