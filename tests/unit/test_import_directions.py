"""The floors of plugins/module_utils: imports go down, never up, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
LIBRARY = PLUGINS / "module_utils"

# From the ground up. Rooms on one floor don't know each other; what two of them need lies on a floor below.
FLOORS = (
    ("core",),
    ("driver", "runtime", "model"),
    ("admission",),
    ("ray",),
    ("engine",),
    ("rollout", "host"),
    ("gates",),
)
APART = ("haproxy", "haproxy_tls")  # imports nothing of this library
ITS_ONE_READER = "host"  # a router is probed as every host is
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

MOST_LINES = 400


def module_name(path: Path, root: Path = LIBRARY) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imported(path: Path, root: Path = LIBRARY) -> Iterator[str]:
    """Modules of root that one file imports by relative names, anywhere in it: inside functions and under TYPE_CHECKING too."""
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            depth = len(package) - (node.level - 1)
            assert depth >= 0, f"{path}:{node.lineno} imports from outside {root.name}"
            start = [*package[:depth], *(node.module.split(".") if node.module else ())]
            for alias in node.names:
                inner = ".".join([*start, alias.name])
                yield inner if is_module(inner, root) else ".".join(start)


def absolute_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def room(module: str) -> str:
    return module.split(".")[0]


def rises(importer: str, target: str) -> bool:
    """Whether an import leaves its floor for anything but a floor below."""
    source, destination = room(importer), room(target)
    if source == destination:
        return False
    if source in APART or destination in APART:
        return source != ITS_ONE_READER
    return FLOOR[destination] >= FLOOR[source]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle in the order in which they import each other, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


FILES = sorted(LIBRARY.rglob("*.py"))
GRAPH = {module_name(path): set(imported(path)) for path in FILES}


def test_the_graph_was_read() -> None:
    """An empty graph has no circle and no arrow upward: it would pass all that follows."""
    assert "driver.state" in GRAPH["driver.packages"]
    assert sum(len(targets) for targets in GRAPH.values()) > 100


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in GRAPH} - {"__init__"}
    assert rooms == {*FLOOR, *APART}


@pytest.mark.parametrize("importer", sorted(GRAPH))
def test_imports_go_down(importer: str) -> None:
    assert [target for target in sorted(GRAPH[importer]) if rises(importer, target)] == []


def test_no_circle_between_modules() -> None:
    assert circle(GRAPH) == []


def test_no_circle_between_controller_and_report() -> None:
    root = PLUGINS / "plugin_utils"
    graph: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        targets = {name for name in absolute_imports(path) if ".plugin_utils." in name}
        graph[module_name(path, root)] = {name.split(".plugin_utils.")[1] for name in targets}
    assert circle(graph) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_hosts_need_no_ansible(path: Path) -> None:
    """Hosts run this library with their own Python, without Ansible."""
    assert [name for name in absolute_imports(path) if room(name) in ("ansible", "ansible_collections")] == []


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("importer", "target", "refused"),
    [
        ("driver.packages", "core.records", False),
        ("driver.packages", "driver.state", False),
        ("core.records", "driver.state", True),
        ("driver.state", "runtime.state", True),
        ("gates.network_probe", "host.probe", False),
        ("rollout.plan", "host.probe", True),
        ("haproxy", "core.records", True),
        ("rollout.plan", "haproxy", True),
        ("haproxy", "host.probe", True),
        ("host.probe", "haproxy", False),
        ("gates.ranks.launcher", "gates.result", False),
    ],
)
def test_the_rule_of_the_floors(importer: str, target: str, refused: bool) -> None:
    assert rises(importer, target) is refused


def test_the_rule_of_circles() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
