"""`lockstep.vllm` works from its artefact alone, not only from the checkout."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
ROLES = sorted(path.parent.parent.name for path in (ROOT / "roles").glob("*/tasks/main.yml"))
PLAYBOOKS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
PLUGINS = {
    kind: sorted(path.stem for path in (ROOT / "plugins" / kind).glob("*.py") if not path.stem.startswith("_"))
    for kind in ("callback", "filter", "lookup", "test")
}


def documents(run: Any, kind: str, names: list[str]) -> dict[str, Any]:
    printed = run("ansible-doc", "--json", "-t", kind, *(f"lockstep.vllm.{name}" for name in names))
    loaded: dict[str, Any] = json.loads(printed)
    return loaded


def test_the_artefact_holds_the_collection_and_nothing_else(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    top = {member.name.split("/")[0] for member in members}
    assert top <= {
        "CHANGELOG.rst", "CONTRIBUTING.md", "COPYING", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md",
        "data", "docs", "inventories", "meta", "playbooks", "plugins", "roles", "tests",
    }  # fmt: skip
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert {m.name for m in members if m.name.startswith("tests/")} <= {"tests/config.yml"}
    assert not [m.name for m in members if m.name.startswith("inventories/testbed")]
    assert not [m.name for m in members if "__pycache__" in m.name or m.size > 1_000_000]
    for folder in ("data", "playbooks", "plugins", "roles"):
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert {name for name in here if "__pycache__" not in name} == {
            m.name for m in members if m.name.startswith(f"{folder}/")
        }


def test_it_says_where_documentation_and_issues_are(artefact: Path) -> None:
    with tarfile.open(artefact) as archive:
        member = archive.extractfile("MANIFEST.json")
        assert member
        said = json.load(member)["collection_info"]
    for name in ("repository", "documentation", "homepage", "issues"):
        assert str(said[name]).startswith("https://"), name


def test_every_module_is_documented(run: Any) -> None:
    found = documents(run, "module", MODULES)
    for name in MODULES:
        page = found[f"lockstep.vllm.{name}"]
        assert page["doc"]["short_description"], name
        assert page["examples"].strip(), f"{name}: no EXAMPLES"
        assert page["return"], f"{name}: no RETURN"
        assert "check_mode" in page["doc"].get("attributes", {}), (
            f"{name}: does not document what it does in check mode"
        )


@pytest.mark.parametrize("kind", sorted(kind for kind, names in PLUGINS.items() if names))
def test_every_plugin_is_documented(run: Any, kind: str) -> None:
    printed = json.loads(run("ansible-doc", "--json", "-t", kind, "--list", "lockstep.vllm"))
    assert printed, f"ansible-doc finds no {kind} in the collection"
    found = json.loads(run("ansible-doc", "--json", "-t", kind, *sorted(printed)))
    assert all(found[name]["doc"]["short_description"] for name in printed)


def test_every_verb_of_every_role_is_documented(run: Any) -> None:
    found = json.loads(run("ansible-doc", "--json", "-t", "role", *(f"lockstep.vllm.{name}" for name in ROLES)))
    for role in ROLES:
        verbs = {path.stem for path in (ROOT / "roles" / role / "tasks").glob("[!_]*.yml")}
        entries = found[f"lockstep.vllm.{role}"]["entry_points"]
        assert verbs <= set(entries), f"{role}: no documentation of {verbs - set(entries)}"
        assert all(entry["short_description"] for entry in entries.values()), role


def test_playbooks_can_be_called_by_their_collection_names(run: Any, elsewhere: Path) -> None:
    assert not [name for name in PLAYBOOKS if "-" in name], "a playbook with a dash cannot be found by its name"
    inventory = elsewhere / "none.yml"
    inventory.write_text(yaml.safe_dump({"lockstep": {"children": {"replica_a": {"hosts": {"a1": {}}}}}}))
    names = [f"lockstep.vllm.{name.removesuffix('.yml')}" for name in PLAYBOOKS]
    said = run("ansible-playbook", "-i", inventory, "--syntax-check", *names)
    assert [name for name in PLAYBOOKS if f"/playbooks/{name}" not in said] == [], "each is checked"
