"""All of ansible-core that Lockstep uses beyond its documented plugin API, each with why and where it was read.

"Read in 2.19.4, 2.20.0, 2.21.5" means: the source was read there, and tests/unit/plugin_utils/controller/
test_ansible_internals.py runs against the lowest and the locked version (``make contract``). The supported range stands in
meta/runtime.yml alone. Nothing private is imported when this file is: an unsupported version gets its message, no traceback.
"""

from __future__ import annotations

import functools
import inspect
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from ansible import context, release
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE, boolean
from ansible.plugins.loader import become_loader, connection_loader

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import bounded

_FALSE = {str(value).lower() for value in (*BOOLEANS_FALSE, False, 0, "")}
_RUNTIME = Path(__file__).resolve().parents[3] / "meta" / "runtime.yml"
TOO_DEEP = Stop("what it answered is nested too deep to be shown", "ansible-playbook playbooks/status.yml").as_result()
"""In place of a task's result."""


class Connection(Protocol):
    """What is used of a connection plugin; all of it documented."""

    become: Any

    def exec_command(self, cmd: str, in_data: bytes, sudoable: bool) -> tuple[int, bytes, bytes]: ...
    def close(self) -> None: ...


@functools.cache
def supported_versions() -> tuple[str, str]:
    """The lowest version of ansible-core that meta/runtime.yml declares, and the lowest that is too new."""
    declared = str(yaml.safe_load(_RUNTIME.read_text(encoding="utf-8"))["requires_ansible"])
    lowest, too_new = (part.strip("<>= ") for part in declared.split(","))
    return lowest, too_new


def unsupported(version: str = release.__version__) -> Stop | None:
    """Why it stops where ``version`` of ansible-core is not supported, None where it is."""
    lowest, too_new = supported_versions()
    final = not re.search("[a-z]", version)
    if _numbers(lowest) <= _numbers(version) < _numbers(too_new) and (final or _numbers(version) != _numbers(lowest)):
        return None
    need = f"need >= {lowest}, < {too_new}"
    return Stop(f"ansible-core {version} is not supported; {need}", f"pip install 'ansible-core>={lowest},<{too_new}'")


def _numbers(version: str) -> tuple[int, ...]:
    """Major, minor and patch; what follows, as of a release candidate, is left out."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return (*numbers, *(0,) * (3 - len(numbers)))


def require_supported_version() -> None:
    """Fail the task, before anything was asked of a host, on an ansible-core that is not supported."""
    stop = unsupported()
    if stop:
        raise AnsibleActionFail(str(stop), result=stop.as_result())


def raw_variables(hostvars: Any, host: str) -> Mapping[str, Any]:
    """All variables of ``host``, untemplated, so that each is templated once, over the roles' defaults.

    ``HostVars.raw_get``: undocumented, but what ``hostvars[host]`` itself calls. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    variables: Mapping[str, Any] = hostvars.raw_get(host)
    return variables


def child_groups(hostvars: Any, group: str) -> list[str]:
    """The child groups of ``group`` in inventory order; the documented ``groups`` tells hosts of groups, not their nesting.

    ``HostVars._inventory``, an InventoryManager. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    parent = hostvars._inventory.groups.get(group)
    return [] if parent is None else [child.name for child in parent.child_groups]


def host_templar(templar: Any, variables: Mapping[str, Any]) -> Any:
    """A templar like the task's own that sees only ``variables``: those of another host.

    ``Templar.copy_with_new_env``: meant for lookup plugins, undocumented. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    return templar.copy_with_new_env(available_variables=variables)


def load_templates(loader: Any, path: Path) -> dict[str, Any]:
    """A YAML file of this collection, its templates trusted as those of a role's defaults are.

    ``DataLoader.load_from_file(trusted_as_template=True)``: new with data tagging. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    variables: dict[str, Any] = loader.load_from_file(str(path), trusted_as_template=True) or {}
    return variables


def extra_variables(loader: Any) -> Mapping[str, Any]:
    """What the command line sets by ``-e``, apart from what the inventory sets.

    ``ansible.utils.vars.load_extra_vars``: undocumented. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    from ansible.utils.vars import load_extra_vars

    variables: Mapping[str, Any] = load_extra_vars(loader)
    return variables


def play_variables(play: Any, group: str, names: Iterable[str]) -> dict[str, Any]:
    """Those of ``names`` that are set for the first host of ``group`` in a play, templated; nothing without such a host.

    ``Play.get_variable_manager``, ``VariableManager._inventory`` and ``_loader``: a callback is given no variables. Read in
    2.21.5.
    """
    from ansible.template import Templar

    manager = play.get_variable_manager()
    found = manager._inventory.groups.get(group)
    hosts = found.get_hosts() if found is not None else []
    if not hosts:
        return {}
    try:
        variables = manager.get_vars(play=play, host=hosts[0], include_hostvars=False)
    except AnsibleError:
        return {}  # such as a vault that does not open: Ansible itself says so, and ends
    templar = Templar(loader=manager._loader, variables=variables)
    return {name: templar.template(variables[name]) for name in names if name in variables}


def written_at(text: str) -> str:
    """The file and line that a name in the inventory comes from; empty where Ansible does not know.

    The tag ``Origin``: undocumented, but what Ansible's own errors show. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    from ansible._internal._datatag._tags import Origin

    origin = Origin.get_tag(text)
    if origin is None or not origin.path:
        return ""
    path = Path(origin.path)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{origin.line_num}" if origin.line_num else str(shown)


def only_checks_syntax() -> bool:
    """Whether nothing is run (``--syntax-check``), as linters do, which have no inventory.

    ``context.CLIARGS``: undocumented for plugins. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    return bool(context.CLIARGS.get("syntax"))


def left_out(options: Mapping[str, Any] | None = None) -> list[str]:
    """The options of the command line that leave tasks of a playbook out, as they are typed.

    ``context.CLIARGS``: undocumented for plugins; ``ansible_run_tags`` knows nothing of ``--start-at-task``. Read in 2.19.4,
    2.20.0, 2.21.5.
    """
    given = context.CLIARGS if options is None else options
    tags, skipped, start = given.get("tags") or (), given.get("skip_tags") or (), given.get("start_at_task")
    return [
        *(["--tags"] if set(tags) - {"all"} else []),
        *(["--skip-tags"] if skipped else []),
        *(["--start-at-task"] if start else []),
    ]


def full_name(task: Any) -> str:
    """The full name of a task's action, as ``lockstep.vllm.plan``, whatever the playbook calls it; empty where unknown.

    ``Task.resolved_action``: set when a task is loaded, undocumented. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    return str(task.resolved_action or "")


def playbook_name(playbook: Any) -> str:
    """The name of the playbook's file without its ending.

    ``Playbook._file_name``: what the default callback shows too. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    return Path(str(playbook._file_name)).stem


def playbook_folder(playbook: Any) -> Path:
    """The folder of the playbook's file, without links. ``Playbook._file_name``, as above."""
    return Path(str(playbook._file_name)).resolve().parent


def inventory_of(playbook: Any) -> Any:
    """The InventoryManager whose ``subset`` limits the hosts of every play of a playbook that starts.

    ``VariableManager._inventory`` of its first play: the object that PlaybookExecutor asks for the hosts of each play, after
    callbacks were notified of the playbook. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    return playbook.get_plays()[0].get_variable_manager()._inventory


def may_be_true(playbook: Any, name: str, hosts: Iterable[str]) -> bool:
    """Whether a variable of a playbook's first play is true for one of ``hosts``, or may be: a template is not evaluated.

    ``VariableManager.get_vars``, as PlaybookExecutor calls it for every play. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    play = playbook.get_plays()[0]
    manager = play.get_variable_manager()
    values = (manager.get_vars(play=play, host=manager._inventory.get_host(host)).get(name) for host in hosts)
    return any(value is not None and str(value).strip().lower() not in _FALSE for value in values)


def connect(play_context: Any, host: str, variables: Mapping[str, Any], become: bool) -> Connection:
    """A connection to ``host``, not yet opened, with its become plugin, outside of Ansible's worker for that host.

    ``connection_loader.get`` with a PlayContext, ``set_become_plugin`` and ``set_options`` in the order in which
    ``TaskExecutor._get_connection`` calls them. To be called from one thread, as the loader is not thread-safe; the connections
    then run their commands in a thread each: `ssh` and `local` keep no state outside of their object. Read in 2.19.4, 2.20.0,
    2.21.5.

    Args:
        play_context: the task's own; what the host's variables leave open.
        variables: the host's connection variables, templated.
        become: whether to escalate where ``ansible_become`` does not say.
    """
    context = play_context.copy()
    context.remote_addr = variables.get("ansible_host", host)
    name = variables.get("ansible_connection", context.connection or "ssh")
    connection = connection_loader.get(name, context)
    if connection is None:
        raise AnsibleError(f"{host}: there is no connection plugin {name!r}; set ansible_connection to one that is")
    # A variable of the inventory wins; then the host's own name, never that of the task's first host.
    options = {"inventory_hostname": host, "ansible_host": host, **variables}
    plugin = None
    if boolean(variables.get("ansible_become", become)):
        plugin = become_loader.get(variables.get("ansible_become_method", "sudo"))
        plugin.set_options(var_options=options)
    connection.set_become_plugin(plugin)
    connection.set_options(var_options=options)
    _count_what_it_reads(type(connection))
    opened: Connection = connection
    return opened


def _count_what_it_reads(plugin: Any) -> None:
    """Have the processes that a class of connections starts be killed at their job's deadline and limit (see bounded.py).

    `ssh` and `local` start theirs by the global ``subprocess`` of their module, read `ssh`'s by ``stdout.read()`` when a
    selector says so, `local`'s by ``communicate``; neither bounds what it reads. Read in 2.19.4, 2.20.0, 2.21.5. A plugin that
    starts no process has its deadline alone.
    """
    names = inspect.unwrap(plugin.exec_command).__globals__
    if names.get("subprocess") is subprocess:
        names["subprocess"] = bounded.subprocess_that_counts


@functools.cache
def limit_answers(limit: int, too_much: Callable[[str, int], Exception]) -> None:
    """From now on a host that answers one call of a task's connection with more than ``limit`` bytes fails that task.

    Called in the controller's own process: its workers are forks of it, and ``connection_loader`` keeps the class of a plugin
    once it has loaded it. What a connection raises goes up through the action, whichever it is, to ``TaskExecutor``, which
    makes it the task's result. ``PlayContext.remote_addr`` is the host, also where the task is delegated to it. Read in
    2.19.4, 2.20.0, 2.21.5.

    Args:
        too_much: makes the error, of the host as the connection calls it and of ``limit``.
    """

    def error(connection: Any) -> Exception:
        return too_much(str(connection._play_context.remote_addr), limit)

    for name in ("ssh", "local"):
        plugin = connection_loader.get(name, class_only=True)
        _count_what_it_reads(plugin)
        for method in ("exec_command", "put_file", "fetch_file"):
            setattr(plugin, method, bounded.limited(getattr(plugin, method), limit, error))


def privileged(connection: Any, command: str) -> str:
    """``command`` as the connection's become plugin wants it run; unchanged without one.

    ``connection._shell``, which ``ActionBase._low_level_execute_command`` passes likewise. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    if not connection.become:
        return command
    built: str = connection.become.build_become_command(command, connection._shell)
    return built


def result_of(result: Any) -> Any:
    """What a task came to, as a dictionary; TOO_DEEP where Ansible itself cannot make one of it.

    ``HostTaskResult.result`` copies what the host answered, level by level, and raises RecursionError for some hundreds of
    lists in each other, which JSON's parser and the worker let pass. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    try:
        return result.result
    except RecursionError:
        return TOO_DEEP


def show_warnings(callback: Any, result: Any) -> None:
    """Show the warnings and deprecations of a task's result, as the default callback does; an error is the caller's to show.

    ``CallbackBase._handle_warnings``: a part of what every stdout callback of ansible-core calls. Read in 2.19.4, 2.20.0,
    2.21.5.
    """
    callback._handle_warnings(result_of(result))


def show_through(display: Any, through: Callable[..., None]) -> None:
    """Have all that is displayed in this process pass ``through``, which gets the real ``display`` and its arguments.

    An attribute of the one ``Display``, whose class has the method: its own ``warning``, ``banner`` and the rest call it by
    ``self``, and the thread that shows what workers send looks it up by name. Read in 2.19.4, 2.20.0, 2.21.5.
    """
    display.display = functools.partial(through, display.display)
