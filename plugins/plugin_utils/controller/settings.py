"""The public variables of every role, resolved for one host as Ansible would inside the role."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import jinja2.meta
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state

ROOT = Path(__file__).resolve().parents[3]
HOST_ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server", "node_metrics")
ROUTER_ROLES = ("vllm_haproxy",)
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where it was built, takes a tenth of the time


@functools.cache
def argument_specs(role: str) -> Mapping[str, Any]:
    """The role's documented verbs."""
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    return MappingProxyType(yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML)["argument_specs"])


@functools.cache
def public_variables(role: str) -> tuple[str, ...]:
    """Names in the role's argument_specs, all verbs together."""
    return tuple(sorted({name for verb in argument_specs(role).values() for name in verb.get("options", {})}))


@functools.cache
def defaults(loader: DataLoader, roles: tuple[str, ...] = HOST_ROLES) -> Mapping[str, Any]:
    """The roles' defaults, untemplated. Read once: the loader would copy them through and through for every host."""
    merged: dict[str, Any] = {}
    for role in roles:
        path = ROOT / "roles" / role / "defaults" / "main.yml"
        if path.exists():
            merged.update(loader.load_from_file(str(path), trusted_as_template=True) or {})
    return MappingProxyType(merged)


def resolve(
    templar: Templar, raw: Mapping[str, Any], default: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Any]:
    """Values of ``names`` for one host: its own variables over the roles' defaults, templated. Unset ones are left out.

    What a default of a role comes out as on one host it is on every other where all that it depends on is alike, and is kept
    for those: Ansible would compile its templates anew for each host.
    """
    variables = {**default, **raw}
    scoped = templar.copy_with_new_env(available_variables=variables)
    found = {}
    for name in names:
        if name in variables:
            alike = depends_on(name, variables, default)
            if alike is None:
                found[name] = scoped.template(variables[name])
            else:
                if alike not in _SETTLED:
                    _SETTLED[alike] = scoped.template(variables[name])
                found[name] = _SETTLED[alike]
    return found


def depends_on(name: str, variables: Mapping[str, Any], default: Mapping[str, Any]) -> str | None:
    """All that the value of ``name`` depends on, in words that are alike wherever it must come out alike.

    None where that cannot be told: only plain values, and defaults of roles made of variables of which that is known, are
    looked through; not the inventory's own templates, nor containers, and no template that calls a function.
    """
    if name not in variables:
        return f"{name} is unset" if name in _all_public_variables() else None
    value = variables[name]
    if value is None or (isinstance(value, str | int | float) and "{" not in str(value)):
        return f"{name}={value!r}"
    if value is not default.get(name):
        return None
    used = [_names_in(text) for text in _texts_in(value)]
    if None in used:
        return None
    parts = [
        depends_on(other, variables, default) for other in sorted({other for names in used for other in names or ()})
    ]
    return None if None in parts else f"{name}={value!r} where {parts}"


_SETTLED: dict[str, Any] = {}


@functools.cache
def _all_public_variables() -> frozenset[str]:
    return frozenset(name for role in (*HOST_ROLES, *ROUTER_ROLES) for name in public_variables(role))


def _texts_in(value: Any) -> Iterator[str]:
    """Every string in a value, keys of dictionaries included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts_in(key), *_texts_in(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


@functools.cache
def _names_in(template: str) -> frozenset[str] | None:
    """The variables and functions that a template asks for; None where it can't be parsed."""
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template)))
    except jinja2.TemplateSyntaxError:
        return None


def connection(templar: Templar, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of one host that say how to reach it and how to become root there, templated."""
    return resolve(templar, raw, {}, [name for name in raw if name.startswith("ansible_")])


@functools.cache
def promised_runtime(lock: str | None) -> Mapping[str, str | None]:
    """What the serving environment of a lock (its shipped name or a path) will hold; empty when it can't be read."""
    shipped = ROOT / "roles" / "serving_runtime" / "files" / "locks" / f"{lock}.txt"
    path = shipped if shipped.exists() else Path(lock or "")
    return runtime_state.promised(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def role_files(role: str) -> str:
    """Digest of the files that decide what ``role`` does on a host."""
    also = (ROOT / part for part in manifests.ALSO_INSTALLED.get(role, ()))
    return manifests.tree_digest([ROOT / "roles" / role, *also])


def role_inputs(role: str, settings: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """The digest of all inputs of ``role`` on a host with these ``settings`` in the topology ``context``."""
    variables = {name: settings[name] for name in manifests.deciding(argument_specs(role)) if name in settings}
    return manifests.digest(role_files(role), variables, context)
