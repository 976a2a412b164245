"""The public variables of every role, resolved for one host as Ansible would inside the role."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils.core import manifests
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import locked
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, role_digest
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import ConnectionVariables

Variables = Mapping[str, Any]
"""Variables of a host or a role, as they are written or templated."""
Values = dict[str, Any]
Option = Mapping[str, Any]
"""Of an argument spec, as it is documented."""
ROOT = Path(__file__).resolve().parents[3]
HOST_ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server", "model", "node_metrics")
ROUTER_ROLES = ("vllm_haproxy",)
SHIPPED_LOCKS = ("cuda", "cpu")
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C, where it was built, takes a tenth of the time


@functools.cache
def argument_specs(role: str) -> Variables:
    """The role's documented entry points."""
    path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
    return MappingProxyType(yaml.load(path.read_text(encoding="utf-8"), Loader=YAML)["argument_specs"])


@functools.cache
def public_variables(role: str) -> tuple[str, ...]:
    """Names in the role's argument_specs, all entry points together."""
    return tuple(sorted({name for entry in argument_specs(role).values() for name in entry.get("options", {})}))


@functools.cache
def written_defaults(role: str) -> Variables:
    """The role's defaults as they are written; templates are text."""
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return MappingProxyType(yaml.load(path.read_text(encoding="utf-8"), Loader=YAML) or {} if path.exists() else {})


@functools.cache
def defaults(loader: DataLoader, roles: tuple[str, ...] = HOST_ROLES) -> Variables:
    """The roles' defaults, untemplated. Read once: the loader would deep-copy them for every host."""
    merged: Values = {}
    for role in roles:
        path = ROOT / "roles" / role / "defaults" / "main.yml"
        if path.exists():
            merged.update(ansible_internals.load_templates(loader, path))
    return MappingProxyType(merged)


def resolve(templar: Templar, raw: Variables, default: Variables, names: Iterable[str]) -> Values:
    """Values of ``names`` for one host: its own variables over the roles' defaults, templated. Unset names are left out."""
    variables = {**default, **raw}
    scoped = ansible_internals.host_templar(templar, variables)
    return {name: scoped.template(variables[name]) for name in names if name in variables}


@dataclasses.dataclass(frozen=True)
class Declared:
    """What inventory and command line declare for one host.

    Attributes:
        roles: the roles that the host has.
        raw: everything that is set for it, untemplated, Ansible's own variables included.
        values: the variables of its roles, what is set over the roles' defaults, and what is set of the further ones.
        faults: variable to why it has no value: its template fails.
    """

    roles: tuple[str, ...]
    raw: Variables
    values: Variables
    faults: Mapping[str, str]

    def named(self, name: str) -> Iterator[str]:
        """The variable's name as it stands in the inventory, with the tags that say where; nothing where it is not set."""
        return (key for key in self.raw if key == name)


def declared(
    templar: Templar, raw: Variables, loader: DataLoader, roles: tuple[str, ...], further: Iterable[str] = ()
) -> Declared:
    """What ``raw``, all variables of a host, means for its ``roles``; of the names in ``further``, those that are set too."""
    default = defaults(loader, roles)
    variables = {**default, **raw}
    scoped = ansible_internals.host_templar(templar, variables)
    values: Values = {}
    faults: dict[str, str] = {}
    for name in [*_names(roles), *(name for name in further if name in raw)]:
        if name in variables and name not in values:
            try:
                values[name] = scoped.template(variables[name])
            except AnsibleError as error:
                faults[name] = str(error).strip().splitlines()[0]
    return Declared(roles, raw, values, faults)


@functools.cache
def _names(roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for role in roles for name in public_variables(role)}))


def connection(templar: Templar, raw: Variables) -> ConnectionVariables:
    """The variables of one host that say how to reach it and how to become root there, templated."""
    return cast(ConnectionVariables, resolve(templar, raw, {}, [name for name in raw if name.startswith("ansible_")]))


class Lock(NamedTuple):
    """What a lock promises of the serving environment (runtime_state.promised), or why it cannot be read."""

    promises: Mapping[str, str | None]
    problem: str | None = None
    hashed: bool = False


@functools.cache
def lock(name: str | None) -> Lock:
    """The lock of a serving environment, by its shipped name or its path on this controller."""
    shipped = ROOT / "roles" / "serving_runtime" / "files" / "locks"
    path = shipped / f"{name}.txt" if name in SHIPPED_LOCKS else Path(name or "")
    remedy = f"give {' or '.join(SHIPPED_LOCKS)}, or the absolute path of a lock of yours"
    if not path.is_absolute():
        return Lock({}, f"is {name!r}: {remedy}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return Lock({}, f"{name} cannot be read on the controller ({why}): {remedy}")
    return Lock(runtime_state.promised(text), hashed=locked.has_hashes(text))


def environment_problem(lock: Lock, values: Variables) -> str | None:
    """Why the serving environment that ``values`` ask for is refused by every host; None where it is not."""
    if lock.problem:
        return f"serving_runtime_lock {lock.problem}"
    extra = values.get("serving_runtime_extra_requirements")
    source = values.get("serving_runtime_wheelhouse") or values.get("serving_runtime_index_url")
    return locked.unsafe(lock.hashed, list(map(str, extra)) if isinstance(extra, list) else [], str(source or ""))


_engine_records: dict[str, Values] = {}


@functools.cache
def _engine_templates(loader: DataLoader) -> Variables:
    return ansible_internals.load_templates(loader, ROOT / "roles" / "vllm_server" / "vars" / "main.yml")


def engine_record(templar: Templar, loader: DataLoader, mine: Variables) -> Values:
    """The engine.json that the role vllm_server would write on a host with the settings ``mine``: its own template makes it.

    Made once for all heads that are alike: the template takes longer than all else that is read of a host's variables.
    """
    name, role = "__vllm_server_engine", "vllm_server"
    own = {variable: mine[variable] for variable in public_variables(role) if variable in mine}
    for secret in ("vllm_server_api_key", "vllm_server_api_keys_previous", "vllm_server_hub_token"):
        own.pop(secret, None)  # no part of the record
    key = json.dumps(own, default=str)
    if key not in _engine_records:
        made = resolve(templar, {**_engine_templates(loader), **own}, {}, [name])[name]
        _engine_records[key] = json.loads(json.dumps(made, default=str))
    return _engine_records[key]


@functools.cache
def role_files(role: str) -> str:
    """Digest of the files that decide what ``role`` does on a host."""
    return role_digest.of(ROOT / "roles" / role, [ROOT / part for part in manifests.ALSO_INSTALLED.get(role, ())])


def role_inputs(role: str, settings: Variables, context: Variables) -> str:
    """The digest of all inputs of ``role`` on a host with these ``settings`` in the topology ``context``."""
    variables = {name: settings[name] for name in manifests.deciding(argument_specs(role)) if name in settings}
    return manifests.digest(role_files(role), variables, context)
