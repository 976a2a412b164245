"""Every verb of every role is documented, and what is documented is what happens.

The rules, per role: each task file that is a verb (no leading underscore) has an entry in meta/argument_specs.yml;
every variable in defaults/ is documented there with the same default and type; a documented default is a real one; each
public variable that tasks, templates or handlers name is documented.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").glob("*") if path.is_dir())

TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "path": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict, "raw": object,
}  # fmt: skip

roles = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


@functools.cache
def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def specs(role: Path) -> dict[str, Any]:
    found = load(role / "meta/argument_specs.yml")
    assert found, f"{role.name} has no meta/argument_specs.yml"
    entries: dict[str, Any] = found["argument_specs"]
    return entries


@functools.cache
def options(role: Path) -> dict[str, dict[str, Any]]:
    """Every option of the role, whichever verb documents it. Verbs that document one twice must agree about it."""
    merged: dict[str, dict[str, Any]] = {}
    for verb, entry in specs(role).items():
        for name, option in (entry.get("options") or {}).items():
            known = merged.setdefault(name, option)
            known_as, also = ({key: o.get(key) for key in ("type", "default", "choices")} for o in (known, option))
            assert known_as == also, f"{role.name}: {verb} documents {name} as {also}, another verb as {known_as}"
    return merged


@functools.cache
def role_readmes() -> Any:
    loader = SourceFileLoader("role_readmes", str(ROOT / "tools/role-readmes"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("role_readmes", loader))
    loader.exec_module(module)
    return module


def defaults(role: Path) -> dict[str, Any]:
    return load(role / "defaults/main.yml") or {}


def public_names(role: Path) -> dict[str, str]:
    """Variables with the role's prefix that its files name → the file that does."""
    # Not within a name, not a fully qualified or dotted name's tail, not a path's part.
    pattern = re.compile(rf"(?<![\w.\-/]){re.escape(role.name)}_[a-z0-9_]+")
    found: dict[str, str] = {}
    for folder in ("tasks", "handlers", "templates"):
        for path in sorted((role / folder).rglob("*")):
            if path.is_file():
                text = "\n".join(line.split(" #")[0] for line in path.read_text().splitlines())
                found |= dict.fromkeys(pattern.findall(text), f"{folder}/{path.name}")
    return found


def test_there_are_roles_to_test() -> None:
    assert {role.name for role in ROLES} >= {"gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server"}


@roles
def test_every_verb_has_a_description(role: Path) -> None:
    verbs = {path.stem for path in (role / "tasks").glob("[!_]*.yml")}
    entries = specs(role)
    assert verbs == set(entries), f"{role.name}: verbs and argument_specs differ: {sorted(verbs ^ set(entries))}"
    for verb, entry in entries.items():
        assert entry.get("short_description"), f"{role.name}/{verb}: no short_description"


@roles
def test_every_option_has_a_type_and_a_description(role: Path) -> None:
    for name, option in options(role).items():
        assert option.get("description"), f"{role.name}: {name} has no description"
        assert option.get("type") in TYPES, f"{role.name}: {name} has no usable type"
        if option["type"] == "list":
            assert option.get("elements"), f"{role.name}: {name} does not name the type of its elements"


@roles
def test_documented_defaults_are_the_real_ones(role: Path) -> None:
    real = defaults(role)
    documented = options(role)
    assert set(real) <= set(documented), f"{role.name}: undocumented defaults {sorted(set(real) - set(documented))}"
    for name, value in real.items():
        option = documented[name]
        assert not option.get("required"), f"{role.name}: {name} is required and has a default"
        if "default" in option or not is_computed(value):
            assert "default" in option or value in (None, "", [], {}), f"{role.name}: {name}: default not documented"
            assert option.get("default", value) == value, f"{role.name}: {name}: documented default differs"
    for name, option in documented.items():
        if "default" in option:
            assert name in real, f"{role.name}: {name} documents a default that defaults/main.yml does not set"


@roles
def test_no_spec_holds_a_template(role: Path) -> None:
    """Ansible templates a spec before anything is validated: one that names an unset variable fails the role, even where the
    option is given, and a type that the text does not have is refused. What is computed stands in defaults/main.yml alone."""
    templated = [where for where, text in texts(specs(role)) if "{{" in text or "{%" in text]
    assert not templated, f"{role.name}: Jinja in meta/argument_specs.yml: {templated}"


@roles
def test_defaults_have_their_documented_type(role: Path) -> None:
    for name, value in defaults(role).items():
        option = options(role)[name]
        if value is None or is_computed(value):
            continue
        documented = TYPES[option["type"]]
        is_right = isinstance(value, documented) and (option["type"] in ("bool", "raw") or not isinstance(value, bool))
        assert is_right, f"{role.name}: {name} is documented as {option['type']}, its default is {value!r}"
        if option.get("choices"):
            chosen = set(value) if isinstance(value, list) else {value}
            assert chosen <= set(option["choices"]), f"{role.name}: {name}: default {value!r} is no choice"


@roles
def test_no_variable_is_used_without_being_documented(role: Path) -> None:
    documented = set(options(role))
    undocumented = {name: where for name, where in public_names(role).items() if name not in documented}
    assert not undocumented, f"{role.name}: used but not documented: {undocumented}"


@roles
def test_readme_is_made_from_the_spec(role: Path) -> None:
    made = role_readmes().readme(role)
    assert (role / "README.md").read_text() == made, "Next: .venv/bin/python tools/role-readmes"


def test_page_of_all_variables_is_made_from_the_specs() -> None:
    made = role_readmes().reference()
    assert (ROOT / "docs/reference/variables.md").read_text() == made, "Next: .venv/bin/python tools/role-readmes"


@roles
def test_tasks_are_named_by_an_imperative_verb(role: Path) -> None:
    """ "Load driver module", not "Driver is loaded": a name that states a result reads as if it had been reached."""
    names = [
        match[1]
        for folder in ("tasks", "handlers")
        for path in sorted((role / folder).glob("*.yml"))
        for match in re.finditer(r"^\s*- name: (.*)$", path.read_text(), re.MULTILINE)
    ]
    assert names
    main_clauses = {name: re.split(r" (?:that|whether|until|where|why) ", name)[0] for name in names}
    stative = [
        name
        for name, clause in main_clauses.items()
        if re.search(r" (is|are|has|have|was|runs|serves|exists?)\b", clause)
    ]
    assert not stative, role.name


@roles
def test_secrets_are_not_shown(role: Path) -> None:
    for name, option in options(role).items():
        if re.search(r"_(token|api_key|password|secret)$", name):
            assert option.get("no_log") is True, f"{role.name}: {name} is a secret without no_log"


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a spec, with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, where)


def is_computed(value: Any) -> bool:
    return any("{{" in text for _, text in texts(value))
