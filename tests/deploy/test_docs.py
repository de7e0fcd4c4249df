"""The manual is true: what it says to type works, and what it names exists."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

import manual
from house import CHART, DEPLOYMENTS, ROOT, documents, luminate, missing, renders, run

# Pages that are followed word by word, each in a tree and a network of its own.
FOLLOWED = [ROOT / "README.md", DEPLOYMENTS / "README.md", CHART / "README.md", *sorted((DEPLOYMENTS / "docs").glob("*.md"))]

# Pages whose links, targets, keys and metrics have to exist.
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    if name and (ROOT / name).exists() and not name.startswith("tests/fuzz")
)

ABOUT_DEPLOYMENT = [page for page in PAGES if page.is_relative_to(DEPLOYMENTS)]

# Names as the chart's values have them.
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


def name(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """A page without its blocks and comments."""
    text = re.sub(r"^( *)```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    return re.sub(r"<!--.*?-->", "", text, flags=re.S)


def blocks(page, *languages):
    return [block for block in manual.blocks(page) if block.language in languages]


def said(page):
    """What a page has people type or read as code: (where, text)."""
    for block in manual.blocks(page):
        yield str(block), block.text
    for code in CODE.findall(prose(page)):
        yield name(page), code


# Following


@pytest.fixture(scope="module")
def space():
    """Runs a program in a network and a process space of its own, as root or as whoever may call itself so."""
    for prefix in (["unshare"], ["unshare", "--map-root-user"]):
        command = [*prefix, "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "sh", "-c"]
        if subprocess.run([*command, "ip link set lo up"], capture_output=True).returncode == 0:
            return command
    missing("the right to make a network of one's own (unshare --net)")


@pytest.fixture(scope="module")
def following(space):
    """Follows all pages, a few at a time, since most of it is waiting: what will have become of each."""
    binary = luminate()

    def follow(page):
        return subprocess.run(
            [*space, 'ip link set lo up && exec "$@"', "sh", sys.executable, manual.__file__, page],
            capture_output=True, text=True, timeout=900, env=os.environ | {"LUMINATE_BIN": binary},
        )

    with ThreadPoolExecutor(3) as people:
        yield {page: people.submit(follow, page) for page in FOLLOWED}


@pytest.mark.parametrize("page", FOLLOWED, ids=name)
def test_what_a_page_says_to_type_works(following, page):
    done = following[page].result()
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def test_what_is_not_typed_says_why(capsys):
    untyped = []
    for page in FOLLOWED:
        for block in manual.blocks(page):
            reason = block.marks.get("not run")
            if reason is not None:
                assert len(reason) > 10, f"{block}: say why"
                untyped.append(f"  {block}: {reason}")
            elif block.language in ("sh", "shell"):
                pytest.fail(f"{block}: say ```console or ```bash, so that it is typed")
    with capsys.disabled():
        print(f"\n{len(untyped)} blocks of the manual are not typed:", *untyped, sep="\n")


def test_a_page_that_is_wrong_is_found(space, tmp_path):
    tries = {
        "other output": "```console\n$ echo two words\ntwo birds\n```\n",
        "more output": "```console\n$ printf 'a\\nb\\n'\na\n```\n",
        "other numbers": "<!-- exact -->\n```console\n$ echo 1\n2\n```\n",
        "no output": "```console\n$ true\nsomething\n```\n",
        "failure": "```bash\nfalse\n```\n",
        "no failure": "<!-- fails -->\n```bash\ntrue\n```\n",
        "an end": "<!-- terminal: server -->\n```console\n$ echo up and away\nup and running\n```\n",
    }
    for what, text in tries.items():
        page = tmp_path / "page.md"
        page.write_text(text)
        done = subprocess.run(
            [*space, 'exec "$@"', "sh", sys.executable, manual.__file__, page],
            capture_output=True, text=True, env=os.environ | {"LUMINATE_BIN": luminate()},
        )
        assert done.returncode == 1, f"{what}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("text", ["<!-- teminal: a -->\n```bash\n```\n", "<!-- fails -->\nwords\n", "```bash\n", "```console\nls\n```\n"])
def test_marks_and_blocks_that_nobody_understands_are_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError):
        manual.blocks(page)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("ready", "ready\n", True),
        ("a  b", "a b\n", True),
        ("up{job=\"x\"}  1  2026-11-21T09:46:48.968Z", "up{job=\"x\"}  17  2027-01-01T00:00:00Z\n", True),
        ("made key … for a", "made key abc for a\n", True),
        ("…\nend", "one\ntwo\nend\n", True),
        ("{\"a\":\"1\"}", "{\"a\":\"22\"}\n", True),
        ("{\"a\":\"1\"}", "{\"b\":\"22\"}\n", False),
        ("ready", "not ready\n", False),
        ("a\nb", "a\n", False),
    ],
)
def test_what_is_shown_is_compared_loosely(shown, printed, same):
    assert bool(re.fullmatch(manual.loosely(shown), printed)) == same


# Names


def slug(heading):
    """The anchor GitHub gives a heading."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    heading = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return heading.replace(" ", "-")


def anchors(page):
    """The anchors of a page; those that come again are numbered."""
    seen, found = {}, set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(page), re.M):
        anchor = slug(heading)
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(link)
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            broken.append(link)
    assert not broken, broken


@pytest.mark.parametrize("page", ABOUT_DEPLOYMENT, ids=name)
def test_files_that_are_named_exist(page):
    lost = []
    for where, text in said(page):
        for path in re.findall(r"(?<![\w./$-])((?:deployments|docker|tests|src|schema)/[\w./*-]+)", text):
            path = path.rstrip(".")
            if not list(ROOT.glob(path)) and not (page.parent / path).exists():
                lost.append(f"{where}: {path}")
    assert not lost, "\n".join(lost)


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    lost = []
    for page in PAGES:
        for where, text in said(page):
            for words in re.findall(r"(?:^|[`$;&|(] ?|\b[A-Z_]+=\S+ )make ((?:[a-z0-9-]+ ?)+)(?=$|[\s`&|;)])", text, re.M):
                lost += [f"{where}: make {word}" for word in words.split() if word not in targets]
    assert not lost, "\n".join(lost)


@pytest.fixture(scope="module")
def keys():
    """The names of all configuration keys."""
    printed = run(luminate(), "config", "print", "--origin", env={"PATH": os.environ["PATH"]}).stdout
    return {line.split()[0].rstrip(":=") for line in printed.splitlines() if line.strip()}


def in_values(path):
    """Whether the chart has a value of that name, or a map that takes what one likes."""
    at = VALUES
    for name in path.split("."):
        if at in ({}, None):
            return True
        if not isinstance(at, dict) or name not in at:
            return False
        at = at[name]
    return True


def test_configuration_keys_and_values_that_are_named_exist(keys):
    parents = {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}
    roots = {key.split(".")[0] for key in keys} | set(VALUES)
    lost = []
    for page in ABOUT_DEPLOYMENT:
        for code in CODE.findall(prose(page)):
            match = re.fullmatch(r"([a-z_]+(?:\.[A-Za-z_]+)+)(?:[:=].*)?", code)
            if not match or match[1].split(".")[0] not in roots or match[1].endswith(".yaml"):
                continue
            # The chart's own page speaks of a value's neighbours by their last name.
            if page.is_relative_to(CHART):
                continue
            if match[1] not in keys | parents and not in_values(match[1]):
                lost.append(f"{name(page)}: {match[1]}")
        for where, text in said(page):
            for variable in re.findall(r"\bLUMINATE_([A-Z0-9_]*__[A-Z0-9_]+)\b", text):
                if variable.lower().replace("__", ".") not in keys:
                    lost.append(f"{where}: LUMINATE_{variable}")
            for line in re.findall(r"helm (?:install|upgrade|template) .*", text.replace("\\\n", " ")):
                lost += [f"{where}: --set {value}" for value in re.findall(r"--set '?([\w.]+)=", line) if not in_values(value)]
    assert not lost, "\n".join(lost)


def parts_of_the_configuration(page, keys):
    """The YAML blocks of a page that are parts of luminate.yaml, as their top-level keys tell."""
    roots = {key.split(".")[0] for key in keys}
    for block in blocks(page, "yaml"):
        document = yaml.safe_load(block.text)
        # What is written to a file is used by the page itself, for good or ill.
        if isinstance(document, dict) and document and set(document) <= roots and "file" not in block.marks:
            yield block, document


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_is_yaml_and_configuration_is_taken(page, keys, tmp_path):
    for block in blocks(page, "yaml"):
        documents(block.text)
    if page not in ABOUT_DEPLOYMENT:
        return
    for block, document in parts_of_the_configuration(page, keys):
        # Alone a part may lack what it stands on: an address, or a way in. So it is put over what has both.
        whole = manual.merged(
            {"auth": {"mode": "token"}, "storage": {"clickhouse": {"addresses": ["127.0.0.1:8123"]}}}, document)
        # Files that are mounted where it is deployed.
        text = yaml.safe_dump(whole)
        for path in set(re.findall(r"/etc/luminate[\w./-]*", text)):
            file = tmp_path / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("overrides: {}\n" if "overrides" in path else "k" * 40)
            text = text.replace(path, str(file))
        config = tmp_path / "luminate.yaml"
        config.write_text(text)
        done = run(luminate(), "check", "config", config, check=False, cwd=tmp_path, env={"PATH": os.environ["PATH"]})
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"


def test_figures_of_capacity_were_measured():
    """Each row of what one process took is a row of what the benches wrote down, rounded."""
    measured = [
        [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line.rpartition("` |")[2].replace(",", ""))]
        for line in (ROOT / "tests/bench/RESULTS.md").read_text().splitlines()
        if line.startswith("| ")
    ]

    def rounded(shown, number):
        plain = shown.replace(",", "")
        # Noughts at the end of a whole number are what was left of it.
        step = 10 ** (-len(plain.partition(".")[2]) if "." in plain else len(plain) - len(plain.rstrip("0")))
        return abs(float(plain) - number) <= step / 2 + 1e-9

    tried, lost = 0, []
    page = (DEPLOYMENTS / "docs/capacity.md").read_text()
    for line in page[: page.index("\n## Disk")].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        # What is of all cores is in several rows there; shares of a limit are computed.
        if not re.match(r"\| (?:250m|1000m|asked|`)", line):
            continue
        told = [cell for cell in cells[1:] if not re.search("%|<|million|samples", cell)]
        figures = [re.match(r"([\d.,]+)( s)?", cell) for cell in (told[:2] if cells[0].startswith("asked") else told)]
        tried += 1
        # Milliseconds there are seconds here where there are many.
        if not any(
            all(any(rounded(figure[1], number / (1000 if figure[2] else 1)) for number in row) for figure in figures)
            for row in measured
        ):
            lost.append(line)
    assert tried >= 14 and not lost, "\n".join(lost)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The names of the metrics that live servers have: with a disk, with tokens, and over ClickHouse and Redis that are away."""
    folder, found = tmp_path_factory.mktemp("metrics"), set()
    stores = {
        "embedded": {"LUMINATE_STORAGE__EMBEDDED__DATA_DIR": str(folder / "data")},
        "tokens": {
            "LUMINATE_STORAGE__EMBEDDED__DATA_DIR": str(folder / "tokens"),
            "LUMINATE_AUTH__MODE": "token",
            "LUMINATE_AUTH__JWT__SECRET_FILE": str(folder / "secret"),
            "LUMINATE_SELF_SCRAPE__TENANT": "ops",
        },
        "clickhouse": {
            "LUMINATE_STORAGE__BACKEND": "clickhouse",
            "LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES": "127.0.0.1:9",
            "REDIS_URL": "redis://127.0.0.1:9",
            "REDIS_RATELIMIT_ENABLED": "true",
        },
    }
    (folder / "secret").write_text("of the tests and nobody else's, long enough")
    token = run(
        luminate(), "token", "create", "--secret-file", folder / "secret", "--tenant", "ops", "--scope", "read,admin").stdout.strip()
    for store, variables in stores.items():
        log = folder / f"{store}.log"
        with open(log, "w") as out:
            server = subprocess.Popen(
                [luminate(), "--listen", "127.0.0.1:0", "--log.format", "json"], cwd=folder, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], **variables},
            )
        try:
            for _ in range(600):
                if address := re.search(r'"listen":"127\.0\.0\.1:(\d+)"', log.read_text()):
                    break
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            base = f"http://127.0.0.1:{address[1]}"
            # Some are there only once what they count has happened.
            for path, shown in (("/api/v1/query?query=up", "wrong"), ("/api/v1/query?query=up", token), ("/metrics", token)):
                request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {shown}"})
                try:
                    text = urllib.request.urlopen(request, timeout=30).read().decode()
                except urllib.error.HTTPError:
                    continue
            found |= set(re.findall(r"^(luminate_\w+)", text, re.M)) | set(re.findall(r"^# TYPE (\w+)", text, re.M))
        finally:
            server.terminate()
            server.wait(30)
    return found


# Of programs other than the server.
OTHER = re.compile(r"luminate_(canary_\w+|smoke)")


def test_metrics_that_are_named_exist(metrics):
    lost = []
    for page in ABOUT_DEPLOYMENT:
        # Whose metrics test_monitoring.py looks for on servers with everything switched on.
        if page.is_relative_to(DEPLOYMENTS / "monitoring"):
            continue
        for where, text in said(page):
            for metric in re.findall(r"(?<![\w.:/-])(luminate_[a-z0-9_]+[a-z0-9])(?![\w/-])", text):
                plain = re.sub(r"_(bucket|sum|count|total)$", "", metric)
                if metric not in metrics and plain not in metrics and not OTHER.fullmatch(metric):
                    lost.append(f"{where}: {metric}")
    assert not lost, "\n".join(lost)


# kubectl's names of kinds.
KINDS = {
    "deployment": "Deployment", "deploy": "Deployment", "statefulset": "StatefulSet", "sts": "StatefulSet",
    "service": "Service", "svc": "Service", "configmap": "ConfigMap", "cm": "ConfigMap", "secret": "Secret",
    "hpa": "HorizontalPodAutoscaler", "pdb": "PodDisruptionBudget", "ingress": "Ingress", "networkpolicy": "NetworkPolicy",
    "serviceaccount": "ServiceAccount", "namespace": "Namespace",
}


def test_objects_that_kubectl_is_asked_for_exist():
    known = {("Secret", "luminate-secrets"), ("Secret", "luminate-tls"), ("Deployment", "luminate-redis")}
    for _, text in renders():
        known |= {(document["kind"], document["metadata"]["name"]) for document in documents(text)}
    lost = []
    for page in ABOUT_DEPLOYMENT:
        for where, text in said(page):
            for line in re.findall(r"kubectl .*", text.replace("\\\n", " ")):
                for kind, asked in re.findall(r"\b([a-z]+)[/ ](luminate[\w-]*)", line):
                    if kind in KINDS and (KINDS[kind], asked) not in known:
                        lost.append(f"{where}: {kind} {asked}")
                for namespace in re.findall(r"(?:-n|--namespace)[ =]([\w-]+)", line):
                    if ("Namespace", namespace) not in known and namespace not in ("monitoring", "ingress-nginx", "kube-system"):
                        lost.append(f"{where}: namespace {namespace}")
    assert not lost, "\n".join(lost)
