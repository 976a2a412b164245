"""Dashboard and scrape configuration, held against Prometheus' and Grafana's own code and against what is really exported."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics
from tests.unit.module_utils.host.host_states import HEAD

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs/reference/grafana-dashboard.json"
SCRAPED = ROOT / "docs/reference/prometheus.yml"
FIXTURES = ROOT / "tests/unit/fixtures"
CAPTURED = (FIXTURES / "haproxy/2.6.12/metrics.txt", *sorted(FIXTURES.glob("vllm/*/metrics_*.txt")))
_SERIES = re.compile(r"^([a-z_:]+)(?:\{(.*)\})? \S+$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="')
_SELECTOR = re.compile(r"\b((?:lockstep_|haproxy_|vllm:|http_)[a-z_:]+)(?:\{([^}]*)\})?")
OF_TARGETS = {"replica", "router", "instance", "job"}
"""Labels that the scrape configuration and its target files give."""


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression with where it stands, Grafana's variables filled in."""
    read = dashboard()
    for panel in read["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", _filled(target["expr"])
    for note in read["annotations"]["list"]:
        yield note["name"], _filled(note["expr"])
    for variable in read["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]):
            yield variable["name"], found[1]


def _filled(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$replica", ".*")


EXPRESSIONS = list(expressions())


def exported() -> dict[str, set[str]]:
    """Metric to its labels: of our exporter, of a router's own file, and as HAProxy and vLLM were captured."""
    found: dict[str, set[str]] = {}
    router = (ROOT / "roles/vllm_haproxy/templates/lockstep-router.prom.j2").read_text(encoding="utf-8")
    texts = [
        re.sub(r"\{\{.*?\}\}", "0", router),
        metrics.render(metrics.samples(HEAD)),
        *(path.read_text(encoding="utf-8") for path in CAPTURED),
    ]
    for name, labels in _SERIES.findall("\n".join(texts)):
        found.setdefault(name, set()).update(_LABEL.findall(labels))
    return found


def test_every_expression_is_promql(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"check:{n}", "expr": expression} for n, (_where, expression) in enumerate(EXPRESSIONS)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yml")], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(EXPRESSIONS) > 30


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _expression in EXPRESSIONS])
def test_metrics_and_labels_are_there(where: str, expression: str) -> None:
    known = exported()
    for name, matchers in _SELECTOR.findall(expression):
        assert name in known, f"{where}: nothing exports {name}"
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= known[name] | OF_TARGETS, f"{where}: {name}"


def test_every_metric_that_a_person_is_paged_for_is_on_it() -> None:
    """But those that are only ever of one host, which status shows, and those of the collection itself."""
    paged = set(re.findall(r"lockstep_\w+", (ROOT / "docs/reference/alerts.yml").read_text(encoding="utf-8")))
    shown = set(re.findall(r"lockstep_\w+", DASHBOARD.read_text(encoding="utf-8")))
    rest = "engine_suspect known_issue_days_left rollout_lock_heartbeat_timestamp_seconds host_quarantine_timestamp_seconds"
    assert paged - shown <= {f"lockstep_{name}" for name in f"{rest} collect_timestamp_seconds collect_errors".split()}


def test_panels_have_a_place_of_their_own_and_say_what_they_show() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not mine & cells, panel["title"]
        cells |= mine
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert [target["datasource"]["uid"] for target in panel["targets"]] == ["${datasource}"] * len(
                panel["targets"]
            )


PROGRAM = """
import json, sys
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models import dashboard
plugins.register_default_plugins()
print(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(json.load(sys.stdin))))
"""


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """What Grafana's models do not know of what they were given."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from lost(value, kept[key], f"{path}/{key}") if key in kept else [f"{path}/{key}"]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for n, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}/{n}")
    elif given != kept:
        yield path


def through_grafana(sdk: str, read: dict[str, Any]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(read), env={"PYTHONPATH": sdk}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return list(lost(read, json.loads(done.stdout)))


def test_grafana_s_models_know_all_of_it(grafana_sdk: str) -> None:
    assert through_grafana(grafana_sdk, dashboard()) == []


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        ("/refrsh", lambda read: read.update(refrsh="30s")),
        ("/panels/1/gridPos/width", lambda read: read["panels"][1]["gridPos"].update(width=4)),
        ("/panels/1/fieldConfig/defaults/units", lambda read: read["panels"][1]["fieldConfig"]["defaults"].update(units="s")),
        ("/panels/1/targets/0/expression", lambda read: read["panels"][1]["targets"][0].update(expression="up")),
        ("/templating/list/1/regexp", lambda read: read["templating"]["list"][1].update(regexp="x")),
    ],
)  # fmt: skip
def test_what_grafana_s_models_do_not_know_is_found(
    place: str, spoil: Callable[[dict[str, Any]], None], grafana_sdk: str
) -> None:
    read = copy.deepcopy(dashboard())
    spoil(read)
    assert through_grafana(grafana_sdk, read) == [place]


def test_the_scrape_configuration_is_sound(promtool: str) -> None:
    checked = subprocess.run(
        [promtool, "check", "config", "--syntax-only", str(SCRAPED)], text=True, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_scrapes_what_the_inventory_s_target_files_hold() -> None:
    read = yaml.safe_load(SCRAPED.read_text())
    files = [
        Path(name).name for job in read["scrape_configs"] for each in job["file_sd_configs"] for name in each["files"]
    ]
    role = yaml.safe_load((ROOT / "roles/node_metrics/tasks/targets.yml").read_text())
    assert files == [f"{name}.json" for name in role[-1]["loop"]]
    assert all((SCRAPED.parent / name).is_file() for name in read["rule_files"])
