"""Alerts that begin when they should, dashboards on which nothing is dead, and a runbook for each alert."""

import json
import math
import re
import subprocess
import sys
import time

import pytest
import yaml

from fleet import Fleet, call, until
from house import DEPLOYMENTS, program, run

MONITORING = DEPLOYMENTS / "monitoring"
ALERTS = sorted((MONITORING / "alerts").glob("*.yaml"))
TESTS = sorted((MONITORING / "tests").glob("*.yaml"))
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
RUNBOOK = "https://github.com/luminate/luminate/blob/main/deployments/monitoring/runbook.md"

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
        assert set(alert["labels"]) == {"severity"} and alert["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
        assert "tenant=" not in alert["expr"] and "tenant)" not in alert["expr"], name
    assert len(alerts()) == sum("alert" in rule for rule in rules()), "a name is there twice"


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
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert place["x"] + place["w"] <= 24 and not cells & taken, f"{path.stem}: {panel['title']} lies over another"
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
    for name, value in {"$__rate_interval": "5s", "$__range": "1m", "$__interval": "1s", "$job": ".*", "$instance": ".*"}.items():
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
        until("every panel shows something", all_alive, 90)
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
        status, text = call(f"{fleet.store}/api/v1/label/{label}/values", **{"match[]": selector})
        assert status == 200 and json.loads(text)["data"], f"{selector}: {text}"


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
    there = names_in(fleet)
    texts = [*ALERTS, *DASHBOARDS, *MONITORING.glob("*.md"), *TESTS]
    named = {(path.name, name) for path in texts for name in METRIC.findall(path.read_text())}
    assert len(named) > 200
    # Names of counters and histograms without what their samples end in stand for all of these.
    families = {name.removesuffix(suffix) for name in there for suffix in ("_total", "_bucket", "_count", "_sum")}
    assert not sorted((where, name) for where, name in named if name not in there | families)


def metrics(fleet):
    """What everything tells of itself, in the format that promtool reads."""
    canary = json.loads(call(fleet.prometheus_url + "/api/v1/targets")[1])["data"]["activeTargets"]
    canary = next(target["scrapeUrl"] for target in canary if target["labels"]["job"] == "canary")
    for url in (fleet.edge_admin + "/metrics", fleet.gateway_admin + "/metrics", canary):
        status, text = call(url)
        assert status == 200, text
        yield text


def test_metrics_are_as_prometheus_wants_them(fleet):
    for text in metrics(fleet):
        checked = run(program("promtool"), "check", "metrics", input=text, check=False)
        assert checked.returncode == 0, checked.stderr + checked.stdout
        for kind in ("TYPE", "HELP"):
            told = re.findall(rf"^# {kind} (\S+)", text, re.M)
            assert len(told) == len(set(told)), "a metric is told twice"


def test_no_metric_has_a_tenant(fleet):
    for text in metrics(fleet):
        assert not re.search(r'[{,]tenant="', text)
