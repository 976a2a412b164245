"""Whether a request can be meant: every variable of a run against its spec, every name against those known.

Pure: what inventory and command line say comes in as ``settings.Declared``, one for each host, already templated. The types are
checked by Ansible's own ``ArgumentSpecValidator``, as inside the roles; what that lets pass although nobody can have meant it
(a version that YAML read as a number, a port of 70000, nothing at all) is refused here.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import AnsibleValidationError, ArgumentTypeError, ArgumentValueError

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables, ranges
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.settings import Declared, Option, Values

_CHECKED = ("type", "elements", "choices", "required")
_KINDS = {
    "str": "text",
    "path": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}
_NAMED_HOSTS = 4

Places = Callable[[str, str], str]
"""Of a host and a name that is set for it: the file and line that say so, or an empty string."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that is wrong with a variable of one host.

    Attributes:
        name: the variable.
        text: what is wrong and what to write.
        host: whose.
    """

    name: str
    text: str
    host: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What is wrong with the request.

    Attributes:
        refusals: why the run must not begin.
        warnings: what does nothing, and may have been meant to.
        names: the variables that the refusals are about.
    """

    refusals: tuple[Stop, ...] = ()
    warnings: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()


def check(
    declared: Mapping[str, Declared],
    extra: Collection[str],
    limit: Collection[str],
    without: Collection[str] = (),
    groups: Mapping[str, Collection[str]] = MappingProxyType({}),
    places: Places = lambda _host, _name: "",
) -> Found:
    """All that is wrong with the variables of a run.

    Args:
        declared: what is declared for each host of the cluster.
        extra: the names that the command line sets.
        limit: the hosts of the run; others may be as they are.
        without: variables that this run needs not, whatever the roles' specs say.
        groups: the inventory's groups with their hosts: what is true of just those hosts is said of the group.
        places: where a variable of a host is set.
    """
    mistaken = dict(unknown_names(declared, extra, limit))
    misspelt = {slip.meant for slip in mistaken if slip.slip and slip.meant}
    faults: list[Fault] = []
    known: dict[tuple[str, str], tuple[str, ...]] = {}
    for host, each in declared.items():
        if host not in limit:
            continue
        mine = [
            *untemplated(host, each, given=True),
            *values(host, each, known, given=True),
            *missing(host, each, {*without, *misspelt}),
        ]
        # A default that is worked out of other variables is wrong because of them, which is said already.
        if not mine and not any(slip.slip and host in hosts for slip, hosts in mistaken.items()):
            mine = [*untemplated(host, each, given=False), *values(host, each, known, given=False)]
        faults += mine
    say = functools.partial(_line, extra=extra, groups=groups, places=places)
    slips = [say(str(slip), slip.name, hosts) for slip, hosts in mistaken.items() if slip.slip]
    others = [say(str(name), name.name, hosts) for name, hosts in mistaken.items() if not name.slip]
    alike = grouped(((fault.name, fault.text), fault.host) for fault in faults)
    wrong = [say(text, name, hosts) for (name, text), hosts in alike.items()]
    names = {fault.name for fault in faults} | misspelt
    return Found(tuple(map(Stop, (*slips, *wrong))), tuple(others), frozenset(names))


def unknown_names(
    declared: Mapping[str, Declared], extra: Iterable[str], limit: Collection[str]
) -> Iterator[tuple[known_variables.Unknown, list[str]]]:
    """The names that may be mistakes, each with the hosts of the run for which it is set; none for the command line alone."""
    owners: dict[str, list[str]] = {name: [] for name in extra}
    for host, each in declared.items():
        if host in limit:
            for name in each.raw:
                owners.setdefault(name, []).append(host)
    for name, hosts in owners.items():
        found = known_variables.unknown(str(name))
        if found is not None:
            yield found, hosts


def values(
    host: str, declared: Declared, known: dict[tuple[str, str], tuple[str, ...]], given: bool
) -> Iterator[Fault]:
    """What is wrong with the values that are ``given`` for a host, or with those that the roles' defaults work out of them.

    A default that is no template is right (tests/unit/test_argument_specs.py). ``known`` keeps what was found of each value, as
    most hosts have the same.
    """
    computed = known_variables.computed()
    for name, value in declared.values.items():
        if (name in declared.raw) == given and (given or name in computed):
            key = name, repr(value)
            if key not in known:
                known[key] = tuple(faults(name, value))
            yield from (Fault(name, text, host) for text in known[key])


def untemplated(host: str, declared: Declared, given: bool) -> Iterator[Fault]:
    """The variables whose template fails: those that are ``given``, or those that have it from a role's defaults."""
    for name, reason in declared.faults.items():
        if (name in declared.raw) == given:
            yield Fault(name, f"{name} cannot be templated: {reason}", host)


def missing(host: str, declared: Declared, without: Collection[str]) -> Iterator[Fault]:
    """What the verbs of a run need and a host lacks."""
    for name in known_variables.required(declared.roles):
        if name not in declared.values and name not in declared.faults and name not in without:
            yield Fault(name, f"{name} is not set; see inventories/examples", host)


def faults(name: str, value: Any) -> Iterator[str]:
    """What is wrong with the value of a known variable, a line each."""
    option = known_variables.options()[name]
    if value is None:
        if option.get("required") or option.get("default") is not None:
            yield f"{name} has no value: give it one{'' if option.get('required') else ', or remove it'}"
        return
    misread = list(_misread(name, option, value))
    if misread:
        yield from misread
        return
    checked = _validator(name).validate({name: value})
    if checked.errors.errors:
        yield from (_said(name, option, value, error) for error in checked.errors.errors)
        return
    yield from ranges.outside(name, checked.validated_parameters[name])


def _misread(name: str, option: Option, value: Any) -> Iterator[str]:
    """What YAML made of a text without quotes: Ansible would turn it into another text, and nobody would know."""
    kind = option.get("type", "str")
    if kind in ("int", "float") and isinstance(value, bool):
        yield f"{name} is {_shown(option, value)}: expected {_KINDS[kind]}"
    elif kind == "str":
        yield from _not_text(name, name, option, value)
    elif kind == "list" and option.get("elements") == "str" and isinstance(value, list):
        for number, each in enumerate(value, 1):
            if each is None:
                yield f"{name}: its item {number} has no value: give it one, or remove it"
            else:
                yield from _not_text(name, f"item {number} of {name}", option, each)


def _not_text(name: str, what: str, option: Option, value: Any) -> Iterator[str]:
    version = name.endswith("_version")
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and not version):
        return
    if isinstance(value, (list, dict, tuple)):
        yield f"{what} is {_shown(option, value)}: expected text"
        return
    hidden = bool(option.get("no_log"))
    shown = "" if hidden else f" {_shown(option, value)}"
    quoted = "…" if hidden else str(value)
    if isinstance(value, bool):
        read, quoted = f"{_shown(option, value)} to YAML, as yes, no, on and off are", "yes" if value else "no"
    elif isinstance(value, float):
        read = f"the number{shown} to YAML, which drops zeros at its end"
    else:
        read = f"the {'number' if isinstance(value, int) else 'date'}{shown} to YAML"
    written = f'{name}: "{quoted}"' if what == name else f'"{quoted}"'
    yield f"{what} is {read}: write it whole and in quotes, as {written}"


@functools.cache
def _validator(name: str) -> ArgumentSpecValidator:
    spec = argument_spec({name: known_variables.options()[name]})
    spec[name].pop("required", None)
    return ArgumentSpecValidator(spec)


def argument_spec(options: Mapping[str, Option], apply_defaults: bool = False) -> Values:
    """The argument spec that documented ``options`` mean, suboptions included.

    Args:
        options: as a module's documentation or a role's argument_specs have them.
        apply_defaults: whether what is left out gets its default, suboptions of what is left out altogether too.
    """
    spec: Values = {}
    for name, option in options.items():
        spec[name] = {
            key: option[key] for key in (*_CHECKED, *(("default",) if apply_defaults else ())) if key in option
        }
        inner = option.get("suboptions", option.get("options"))
        if inner is not None:
            spec[name]["options"] = argument_spec(inner, apply_defaults)
            spec[name] |= {"apply_defaults": True} if apply_defaults else {}
    return spec


def _said(name: str, option: Option, value: Any, error: AnsibleValidationError) -> str:
    """An error of Ansible's validator in one line that begins with the variable."""
    kind = option.get("type", "str")
    if isinstance(error, ArgumentTypeError) and "options" not in option:
        return f"{name} is {_shown(option, value)}: expected {_KINDS.get(kind, kind)}"
    if isinstance(error, ArgumentValueError) and "options" not in option:
        choices = [str(choice) for choice in option["choices"]]
        given = [str(each) for each in (value if isinstance(value, list) else [value])]
        wrong = [each for each in given if each not in choices]
        close = difflib.get_close_matches(wrong[0], choices, n=1) if wrong else []
        meant = f"; did you mean {close[0]}?" if close else ""
        return f"{name} is {', '.join(wrong)}: choose from {', '.join(choices)}{meant}"
    return f"{name}: {' '.join(str(error).split())}"


def _shown(option: Option, value: Any) -> str:
    """A value as a message may show it: no secret, nothing long, and nothing that may hold a secret inside."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if option.get("no_log") or option.get("type") == "dict":
        return "something else"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return (repr(text) if isinstance(value, str) else text)[:80]


def _line(
    text: str,
    name: str,
    hosts: Sequence[str],
    extra: Collection[str],
    groups: Mapping[str, Collection[str]],
    places: Places,
) -> str:
    """One line for all hosts of which ``text`` is true, with where the variable is set."""
    if name in extra:
        return f"-e: {text}"
    files = sorted({place for host in hosts if (place := places(host, name))})
    where = f" ({', '.join(files[:2])}{' …' if len(files) > 2 else ''})" if files else ""
    return f"{_whose(hosts, groups)}: {text}{where}"


def _whose(hosts: Sequence[str], groups: Mapping[str, Collection[str]]) -> str:
    """The hosts by name; as a group where there is one of just these; the first ones where they are many."""
    if len(hosts) > 1:
        alike = [group for group, members in groups.items() if set(members) == set(hosts)]
        if alike:
            own = [group for group in alike if group not in ("all", "ungrouped")]
            return f"every host of {own[0]}" if own else "every host"
    if len(hosts) <= _NAMED_HOSTS:
        return ", ".join(hosts)
    return f"{', '.join(hosts[: _NAMED_HOSTS - 1])} and {len(hosts) - _NAMED_HOSTS + 1} more"
