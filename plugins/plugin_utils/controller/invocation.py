"""How this run was started, so that a command that it prints works when it is pasted.

All code writes a command in one form, ``ansible-playbook playbooks/<name>.yml …``, or ``ansible-playbook …`` for the playbook
that was started, also on hosts, which cannot know how they were reached. On the controller, where a message leaves for a
person, :meth:`Invocation.repeated` gives each such command what this run was given: the folder, the inventory, ``-e``, the
vault's and the connection's options, and the collection's name where it was started by that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants, context

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables

COLLECTION = "lockstep.vllm."
_PLAYBOOK = re.compile(
    r"(?<!&& )ansible-playbook (?:…|(?:playbooks/)?(?P<name>[a-z_]+)\.yml\b)(?P<given>(?: -e \w+=[^\s;]+)*)"
)
"""A command of ours; … stands for the playbook that was started."""
_MODULE = re.compile(r"(?<!&& )ansible (?=\S+ (?:--become |-b )?-m (?:lockstep\.vllm|ansible\.builtin)\.)")
_LIMIT = re.compile(r"--limit (?P<names>[\w.,-]*\w)")
_NAME = re.compile(r"(\w+)[\"']?\s*[:=]")
_LIKE_A_SECRET = re.compile(
    r"pass(?:word|wd|phrase)?(?:$|_)|token(?:$|_)|secret|credential|(?:api|private)_key", re.IGNORECASE
)
_URL_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_ONE_OFF = ("rollout_action", "verify_disturb", "diagnose_disturb")
"""What is asked of one run alone; a command that needs it names it itself."""
_INVENTORY_FILES = frozenset((".yml", ".yaml", ".ini", ".json", ".py"))
_PATHS = {"vault_password_files": "--vault-password-file", "private_key_file": "--private-key"}
_VALUES = {
    "vault_ids": "--vault-id",
    "remote_user": "--user",
    "become_user": "--become-user",
    "become_method": "--become-method",
}
_FLAGS = {
    "ask_vault_pass": "--ask-vault-password",
    "ask_pass": "--ask-pass",
    "become_ask_pass": "--ask-become-pass",
    "become": "--become",
}


@dataclasses.dataclass(frozen=True)
class Invocation:
    """How a run was started.

    Attributes:
        folder: where; empty where nothing depends on it.
        playbook: what was typed, such as ``site.yml`` or ``lockstep.vllm.site``; empty where it was no ``ansible-playbook``.
        options: the inventory, ``-e``, the vault and the connection, as `ansible-playbook` and `ansible` take them.
        inventories: paths.
    """

    folder: str = ""
    playbook: str = ""
    options: tuple[str, ...] = ()
    inventories: tuple[str, ...] = ()

    @classmethod
    @functools.cache
    def of_this_run(cls) -> Invocation:
        """From the command line and the configuration of the running ``ansible-playbook``."""
        here = os.getcwd()
        config = constants.CONFIG_FILE
        typed: Iterable[str] = context.CLIARGS.get("args") or ()
        return cls(
            folder=here if config and Path(config).parent == Path(here) else "",
            playbook=next(iter(typed), "") if isinstance(typed, (list, tuple)) else "",
            options=tuple(_options(context.CLIARGS, here)),
            inventories=tuple(_texts(context.CLIARGS.get("inventory"))),
        )

    @property
    def typed(self) -> str:
        """The command that began this run, its secrets masked; empty where it was no ``ansible-playbook``."""
        limit = context.CLIARGS.get("subset")
        check = ["--check"] if context.CLIARGS.get("check") else []
        narrowed = ["--limit", shlex.quote(str(limit))] if limit else []
        words = ["ansible-playbook", *self.options, self.playbook, *narrowed, *check]
        return " ".join(words) if self.playbook else ""

    @property
    def cluster(self) -> str:
        """The name of the cluster: its inventory's, below a folder ``inventories`` where it lies in one."""
        return ", ".join(dict.fromkeys(filter(None, map(_named, self.inventories))))

    @property
    def starts(self) -> tuple[str, str]:
        """What :meth:`repeated` puts before the name of a playbook, and before that of a host."""
        start = f"cd {shlex.quote(self.folder)} && " if self.folder else ""
        given = "".join(f" {option}" for option in self.options)
        return f"{start}ansible-playbook{given} ", f"{start}ansible{given} "

    def repeated(self, text: str) -> str:
        """``text`` with every command of ours in it as this run's operator can paste it, from any folder."""
        if not self.playbook:
            return text
        playbooks, modules = self.starts

        def playbook(match: re.Match[str]) -> str:
            named = re.findall(r"-e (\w+)=", match["given"])
            start = playbooks
            for option in self.options:  # what the command itself names is said once
                if option.startswith(tuple(f"-e {name}=" for name in named)):
                    start = start.replace(f" {option} ", " ", 1)
            return start + (self._sibling(match["name"]) if match["name"] else self._same()) + match["given"]

        return _MODULE.sub(lambda _match: modules, _PLAYBOOK.sub(playbook, text))

    def in_result(self, result: Mapping[str, Any], replica_of: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A task's result with the commands in its texts as :meth:`repeated` gives them.

        A gate names its host in ``--limit``; by ``replica_of``, host to replica, the command gets the whole replica.
        """
        return {key: self._in_value(value, replica_of or {}) for key, value in result.items()}

    def _in_value(self, value: Any, replica_of: Mapping[str, str]) -> Any:
        if isinstance(value, str):
            return self.repeated(_whole_replicas(value, replica_of)) if "ansible" in value else value
        if isinstance(value, Mapping):
            return {key: self._in_value(inner, replica_of) for key, inner in value.items()}
        return [self._in_value(inner, replica_of) for inner in value] if isinstance(value, list) else value

    def _same(self) -> str:
        """The playbook that was started."""
        anywhere = self.folder or self.playbook.startswith(COLLECTION)
        return shlex.quote(self.playbook if anywhere else os.path.abspath(self.playbook))

    def _sibling(self, name: str) -> str:
        """The playbook ``name``, named as the one that was started."""
        if self.playbook.startswith(COLLECTION):
            return COLLECTION + name
        folder = Path(self.playbook).parent
        if folder.name == "playbooks":
            folder = folder.parent
        root = Path(self.folder or os.getcwd(), folder)
        if not (root / "playbooks" / f"{name}.yml").is_file():
            return COLLECTION + name  # a playbook of the operator's own imports ours
        path = folder if self.folder else root
        at_the_top = name == "site" and (root / "site.yml").is_file()
        return shlex.quote(str(path / "site.yml" if at_the_top else path / "playbooks" / f"{name}.yml"))


def _whole_replicas(text: str, replica_of: Mapping[str, str]) -> str:
    def whole(match: re.Match[str]) -> str:
        return f"--limit {','.join(dict.fromkeys(replica_of.get(name, name) for name in match['names'].split(',')))}"

    return _LIMIT.sub(whole, text)


def _named(inventory: str) -> str:
    """``mine`` of ``inventories/mine``, ``inventories/mine/hosts.yml`` and ``/srv/mine``; empty of a list of hosts."""
    if "," in inventory:
        return ""
    path = Path(inventory)
    folder = path.parent if path.suffix in _INVENTORY_FILES or path.name == "hosts" else path
    parts = folder.parts
    below = parts[parts.index("inventories") + 1 :] if "inventories" in parts else parts[-1:]
    return "/".join(below) or path.stem


def _options(arguments: Mapping[str, Any], here: str) -> Iterator[str]:
    inventory = _texts(arguments.get("inventory"))
    for source in inventory if inventory != _texts(constants.DEFAULT_HOST_LIST) else ():
        yield f"-i {shlex.quote(_below(source, here))}"
    for key, option in _PATHS.items():
        for value in _texts(arguments.get(key)):
            if value not in _texts(getattr(constants, f"DEFAULT_{key.upper()}", None)):
                yield f"{option} {shlex.quote(_below(value, here))}"
    for key, option in _VALUES.items():
        for value in _texts(arguments.get(key)):
            if value not in _texts(getattr(constants, f"DEFAULT_{key.upper()}", None)):
                yield f"{option} {shlex.quote(value)}"
    for key, option in _FLAGS.items():
        if arguments.get(key) and not getattr(constants, f"DEFAULT_{key.upper()}", False):
            yield option
    for value in _variables(_texts(arguments.get("extra_vars"))):
        yield f"-e {shlex.quote(value)}"


def _variables(given: Iterable[str]) -> Iterator[str]:
    """Values of ``-e`` to repeat. A secret is not printed: of a value that holds one, its name alone, to be filled in.

    Secrets are what a role's spec says so, what is named like one (``ansible_become_password``), and URLs with a password.
    """
    for value in given:
        name = re.match(r"\s*(\w+)=", value)
        if name and name[1] in _ONE_OFF:
            continue
        if value.startswith("@"):  # the name of a file
            yield value
            continue
        named = _secrets_in(value)
        if named and value.lstrip().startswith("{"):  # the variable, not the key within it
            with contextlib.suppress(ValueError):
                parts = {key: json.dumps({key: inner}) for key, inner in json.loads(value).items()}
                yield from (f"{key}=…" if _secrets_in(part) else part for key, part in parts.items())
                continue
        yield from (f"{each}=…" for each in named) if named else (value,)


def _secrets_in(value: str) -> list[str]:
    """The names of the secrets that a value of ``-e`` holds."""
    named = [match[1] for match in _NAME.finditer(value) if match[1] in _secrets() or _LIKE_A_SECRET.search(match[1])]
    if not named and _URL_WITH_PASSWORD.search(value):
        first = _NAME.search(value)
        named = [first[1] if first else "VARIABLE"]
    return list(dict.fromkeys(named))


@functools.cache
def _secrets() -> frozenset[str]:
    return frozenset(name for name, option in known_variables.options().items() if option.get("no_log"))


def _below(path: str, here: str) -> str:
    """An absolute path, relative where it lies below ``here``, which the command goes to first."""
    relative = os.path.relpath(path, here) if os.path.isabs(path) else path
    inside = (
        not relative.startswith("..") and constants.CONFIG_FILE and Path(constants.CONFIG_FILE).parent == Path(here)
    )
    return relative if inside else path


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(each) for each in value or ()]
