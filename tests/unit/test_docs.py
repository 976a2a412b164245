"""What the documentation points at is there."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# A file of this repository, named in running text: at least one folder, and an ending.
NAMED = re.compile(
    r"`((?:docs|plugins|playbooks|roles|tests|tools|data|inventories|molecule|testbed|benchmarks)/[\w./-]*\.\w+)(?::\w+)?`"
)


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


PAGES = [name for name in tracked("*.md") if not name.startswith("tests/unit/fixtures/")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str) -> list[str]:
    found = []
    for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/") or "/" not in page])
def test_files_that_are_named_are_there(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pages_that_code_names_are_there() -> None:
    """Docstrings, comments and messages send people to docs/."""
    lost = [
        f"{name}: {page}"
        for name in tracked("*.py", "*.yml", "*.j2", "*.md", "Makefile", "tools/*")
        if not name.startswith(("tests/unit/", "collections/"))
        for page in re.findall(r"(?<!vLLM's )\bdocs/[\w/-]+\.\w+", (ROOT / name).read_text(encoding="utf-8"))
        if not (ROOT / page).exists()
    ]
    assert lost == []


def index() -> list[tuple[str, str]]:
    """The rows of architecture.md's index that end in ``file:function``."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return re.findall(r"`([\w./]+\.py):(\w+)`", text)


def test_the_index_was_read() -> None:
    assert len(index()) > 25


@pytest.mark.parametrize(("name", "function"), index())
def test_the_index_names_functions_that_exist(name: str, function: str) -> None:
    path = ROOT / "plugins" / name
    assert path.is_file(), f"no plugins/{name}"
    text = path.read_text(encoding="utf-8")
    assert re.search(rf"^\s*(async )?(def|class) {function}\b|^{function}\b.*=", text, re.MULTILINE), (
        f"{name}: no {function}"
    )


def test_every_playbook_has_its_row_and_says_whether_it_takes_tags() -> None:
    page = (ROOT / "docs/reference/playbooks.md").read_text(encoding="utf-8")
    playbooks = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").glob("*.yml")}
    assert sorted(re.findall(r"^\| `(\w+\.yml)` \|", page, re.MULTILINE)) == sorted(playbooks)
    (tagged,) = re.findall(r"`--start-at-task`\*\* are refused but by (.+)\.$", page, re.MULTILINE)
    assert set(re.findall(r"\w+\.yml", tagged)) == {name for name, text in playbooks.items() if "partial=true" in text}
    (whole,) = re.findall(r"whole replicas where replicas are changed \(([^)]+)\)", page)
    assert set(re.findall(r"\w+\.yml", whole)) >= {name for name, text in playbooks.items() if "cut_by_limit" in text}


STATES = {
    "rollout.states": ("Mode", "Step", "Need", "SkipCode", "RollbackOutcome", "RequestAction"),
    "engine.states": ("Phase", "EndCode"),
    "admission.quarantine": ("QuarantineKind",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in STATES.items() for name in names])
def test_the_states_of_the_glossary_are_those_of_the_code(module: str, name: str) -> None:
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    (values,) = re.findall(rf"^\|[^|]+\| `{name}`[^|]*\|([^|]+)\|$", page, re.MULTILINE)
    code = importlib.import_module(f"ansible_collections.lockstep.vllm.plugins.module_utils.{module}")
    assert set(re.findall(r"`(\w+)`", values)) == {each.value for each in getattr(code, name)}


def test_what_counts_as_a_link() -> None:
    assert LINK.findall("see [a](b.md) and [c](../d#e), not (f) or `g`") == ["b.md", "../d#e"]
    assert NAMED.findall("`plugins/module_utils/haproxy.py`, `docs/a.md`, `make check`") == [
        "plugins/module_utils/haproxy.py",
        "docs/a.md",
    ]
