"""The public variables of every role, resolved for one host as Ansible would inside the role."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils import inputs, runtime_state

ROOT = Path(__file__).resolve().parent.parent.parent
HOST_ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server", "metrics")
ROUTER_ROLES = ("router",)


@functools.cache
def argument_specs(role: str) -> Mapping[str, Any]:
    """The role's documented verbs."""
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    return MappingProxyType(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"])


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
    """Values of ``names`` for one host: its own variables over the roles' defaults, templated. Unset ones are left out."""
    scoped = templar.copy_with_new_env(available_variables={**default, **raw})
    found = {}
    for name in names:
        if name in raw or name in default:
            found[name] = scoped.template(raw.get(name, default.get(name)))
    return found


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
    also = (ROOT / part for part in inputs.ALSO_INSTALLED.get(role, ()))
    return inputs.tree_digest([ROOT / "roles" / role, *also])


def role_inputs(role: str, settings: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """The digest of all inputs of ``role`` on a host with these ``settings`` in the topology ``context``."""
    variables = {name: settings[name] for name in inputs.deciding(argument_specs(role)) if name in settings}
    return inputs.digest(role_files(role), variables, context)
