"""One Python program run on every host at once, through Ansible's own connection and become plugins.

A task per host costs a controller process and several round trips per host; a probe of many hosts needs one task, one
thread per host and one round trip each. Nothing is copied to a host: the program and the library that it needs go to
standard input.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import json
import re
import shlex
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable
from ansible_collections.lockstep.vllm.plugins.module_utils.host.codes import AnswerCode
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, bounded
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.ansible_internals import Connection

LIBRARY = Path(__file__).resolve().parents[2] / "module_utils"

# The program comes on standard input; nothing is written, and nothing of the host's environment, of the user's folder or of
# site-packages decides what is imported.
PYTHON_OPTIONS = "-BIS -"
_RELATIVE_IMPORT = re.compile(r"^ *from (\.+)([\w.]*) import (?:\(([^)]*)\)|(.+))", re.MULTILINE)
_COMMENT = re.compile(r"#.*")
_LOOK_UP_SECONDS = 5.0
_NOT_FOUND = 2  # of getent

# Without importlib.abc and base64, which import half of the standard library, without OpenSSL where Python has SHA-256 of its
# own, and without Python's teardown of its modules, which takes a tenth of a probe's time. A module of the library is compiled
# when something of it is first wanted: `from . import module` costs a host nothing where it does not need the module.
_BOOT = """
import _thread, binascii, importlib, importlib.machinery, json, os, sys, zlib
running = _thread.RLock()
sources = json.loads(zlib.decompress(binascii.a2b_base64({library!r})))
module, function, argument = json.loads({call!r})
class Module(type(sys)):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # asked for by the import itself
        with running:
            if self.__spec__.loader_state:
                self.__spec__.loader_state = None
                Library.run(self)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError("module %r has no attribute %r" % (self.__name__, name)) from None
class Library:
    def find_spec(self, name, path=None, target=None):
        top, _, module = name.partition(".")
        if top == "lockstep" and module in sources:
            text, package = sources[module]
            where = "/opt/lockstep/lib/" + name.replace(".", "/") + ("/__init__.py" if package else ".py")
            spec = importlib.machinery.ModuleSpec(name, self, origin=where, is_package=package, loader_state="not run")
            spec.has_location = True
            return spec
    def create_module(self, spec):
        return Module(spec.name)
    def exec_module(self, module):
        pass
    def run(module):
        source = sources[module.__name__.partition(".")[2]][0]
        exec(compile(source, module.__spec__.origin, "exec", dont_inherit=True), module.__dict__)
    def get_source(self, name):
        return sources[name.partition(".")[2]][0]
if not {{"_sha256", "_sha2"}}.isdisjoint(sys.builtin_module_names):
    sys.modules["_hashlib"] = None
sys.meta_path.insert(0, Library())
entry = importlib.import_module("lockstep." + module)
print("\\x1e" + json.dumps(getattr(entry, function)(argument)), flush=True)
threading = sys.modules.get("threading")
for thread in threading.enumerate() if threading else ():
    if thread is not threading.current_thread():
        thread.join()  # which ends its command at a deadline: nothing may outlive the program
os._exit(0)
"""


DEADLINE = 120.0
"""Seconds that one host has for all of it: connecting, its program, its answer. What a program does is bounded to less."""
ANSWER_LIMIT = 4 << 20
"""Bytes that one host may answer; a probe's answer has some tens of thousands."""
_ERROR_LENGTH = 500


class ConnectionVariables(TypedDict, total=False):
    """One host's ``ansible_*`` variables, templated. Those of its connection and become plugins stand in it too."""

    ansible_host: str
    ansible_connection: str
    ansible_become: bool | str
    ansible_become_method: str
    ansible_python_interpreter: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """One host's result.

    Attributes:
        value: what the program's function returned, from JSON; None where ``error`` is set.
        error: why there is no value, on one line.
        reachable: False where the connection itself failed.
        code: the kind of error, for programs; None where there is a value.
    """

    value: Any = None
    error: str | None = None
    reachable: bool = True
    code: AnswerCode | None = None

    @classmethod
    def of_error(cls, code: AnswerCode, error: str) -> Answer:
        """The answer of a host that gave none: ``error`` may be the host's own words."""
        line = " ".join(printable(error).split())
        return cls(error=line[:_ERROR_LENGTH], reachable=code is not AnswerCode.UNREACHABLE, code=code)

    def checked(self, kind: type[Any], strictness: typed.Strictness) -> Answer:
        """The same, its value read as a ``kind``; where it is none, that is the host's failure."""
        if self.code is not None or self.error is not None:
            return self
        try:
            return dataclasses.replace(self, value=typed.parse(kind, self.value, strictness))
        except typed.BadAnswer as error:
            return bad(error)


def bad(error: typed.BadAnswer) -> Answer:
    """The answer of a host whose program answered what cannot be used."""
    return Answer.of_error(AnswerCode.BAD_ANSWER, f"its answer cannot be used: {error}")


def program(module: str, function: str, argument: Any) -> str:
    """Source text that runs ``lockstep.<module>.<function>(argument)`` and prints its result as JSON after an RS byte.

    Args:
        module: dotted name below module_utils, such as ``host.probe``.
        function: called with the one ``argument``; what it returns must be JSON-ready.
        argument: JSON-ready.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    return _BOOT.format(library=_library(module), call=json.dumps([module, function, argument]))


@functools.cache
def _library(module: str) -> str:
    """The sources of ``module`` and of all that it imports from the library, packed once for all hosts.

    Unpacked: dotted module name to its text and whether it is a package.
    """
    sources: dict[str, tuple[str, bool]] = {"": ("", True)}
    ahead = [module]
    while ahead:
        name = ahead.pop()
        if name in sources:
            continue
        path = LIBRARY.joinpath(*name.split("."))
        package = path.is_dir()
        file = path / "__init__.py" if package else path.with_suffix(".py")
        if file.exists():
            sources[name] = file.read_text(encoding="utf-8"), package
            ahead += [*_imported(name, *sources[name]), *([name.rpartition(".")[0]] if "." in name else [])]
    if module not in sources:
        raise ModuleNotFoundError(f"no {module} below {LIBRARY}")
    return base64.b64encode(zlib.compress(json.dumps(sources).encode())).decode()


def _imported(module: str, source: str, package: bool) -> set[str]:
    """Names that relative imports anywhere in a module may bring in: what they import from, and its submodules.

    By a pattern, since parsing them all took longer than a probe of two hosts. What only looks like an import, in a docstring
    for instance, names no file of the library and is passed over.
    """
    result = set()
    here = module.split(".") if package else module.split(".")[:-1]
    for dots, origin, several, line in _RELATIVE_IMPORT.findall(source):
        base = here[: len(here) - len(dots) + 1] + (origin.split(".") if origin else [])
        result |= {".".join(base)} if base else set()
        brought = _COMMENT.sub("", several or line).split(",")
        result |= {".".join([*base, name.split(" as ")[0].strip()]) for name in brought if name.strip()}
    return result


class Fleet:
    """Runs programs on hosts, reached as the inventory says.

    Args:
        play_context: the task's play context (timeouts, command line passwords).
        become: whether to escalate privileges where the inventory does not say.
        threads: how many hosts at once.
        deadline: seconds that each host has.
        limit: bytes that each host may answer.
    """

    def __init__(
        self, play_context: Any, become: bool, threads: int, deadline: float = DEADLINE, limit: int = ANSWER_LIMIT
    ) -> None:
        self._play_context = play_context
        self._become = become
        self._threads = threads
        self._deadline = deadline
        self._limit = limit

    def run(self, programs: Mapping[str, str], variables: Mapping[str, ConnectionVariables]) -> dict[str, Answer]:
        """Run each host's program.

        All connections are prepared before the first program starts: wrong variables of one host keep all from running.
        """
        return self._run([self._prepare(host, text, variables[host]) for host, text in programs.items()])

    def run_read_only(self, programs: Iterable[tuple[str, str, ConnectionVariables]]) -> dict[str, Answer]:
        """As :meth:`run`, for programs that change nothing: the first hosts answer while the last are prepared.

        Args:
            programs: each a host, its program and its connection variables.
        """
        return self._run(self._prepare(*program) for program in programs)

    def _run(self, prepared: Iterable[tuple[str, Callable[[bounded.Watch], Answer]]]) -> dict[str, Answer]:
        return bounded.run(prepared, _late, self._threads, self._deadline, self._limit)

    def _prepare(
        self, host: str, text: str, variables: ConnectionVariables
    ) -> tuple[str, Callable[[bounded.Watch], Answer]]:
        return host, functools.partial(self._run_one, self._connect(host, variables), text, variables)

    def _connect(self, host: str, variables: ConnectionVariables) -> Connection:
        return ansible_internals.connect(self._play_context, host, variables, self._become)

    def _run_one(
        self, connection: Connection, text: str, variables: ConnectionVariables, watch: bounded.Watch
    ) -> Answer:
        interpreter = str(variables.get("ansible_python_interpreter", "/usr/bin/python3"))
        command = ansible_internals.privileged(connection, f"{shlex.quote(interpreter)} {PYTHON_OPTIONS}")
        try:
            with bounded.watched(watch):
                found = connection.exec_command(command, in_data=text.encode(), sudoable=bool(connection.become))
            return _ended_early(watch) or read(*found)
        except AnsibleConnectionFailure as error:
            return _ended_early(watch) or Answer.of_error(AnswerCode.UNREACHABLE, str(error))
        except AnsibleError as error:
            return _ended_early(watch) or Answer.of_error(AnswerCode.FAILED, str(error))
        except Exception as error:  # whatever a host's words make of its connection is that host's failure
            return _ended_early(watch) or Answer.of_error(AnswerCode.FAILED, f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(Exception):  # of a host that was given up on nothing more is wanted
                connection.close()


def _ended_early(watch: bounded.Watch) -> Answer | None:
    """The answer of a host that was cut off."""
    if watch.too_much:
        return Answer.of_error(
            AnswerCode.TOO_LARGE, f"answered more than {watch.limit >> 20 or 1} MiB, and was cut off"
        )
    return _late(watch) if watch.late else None


def _late(watch: bounded.Watch) -> Answer:
    return Answer.of_error(AnswerCode.NO_ANSWER, f"gave no answer within {watch.seconds:g} s")


def read(status: int, out: bytes, err: bytes) -> Answer:
    """The answer in a finished program's exit status and output; whatever stands before the RS byte is ignored."""
    _banner, mark, text = out.rpartition(b"\x1e")
    words = _last_line(err.decode("utf-8", "replace"))
    if status == 0 and mark:
        try:
            return Answer(value=typed.loads(text.decode("utf-8", "replace")))
        except typed.BadAnswer as error:
            return bad(error)
    if status == 255 and not mark:
        return Answer.of_error(AnswerCode.UNREACHABLE, words or "ssh exited with status 255")
    return Answer.of_error(AnswerCode.FAILED, f"the program exited with status {status}: {words or 'no error output'}")


def unresolved(names: Iterable[str]) -> set[str]:
    """Those of ``names`` that mean no address here; one that is not answered for within some seconds is not among them."""
    once = list(dict.fromkeys(names))
    if not once:
        return set()
    with ThreadPoolExecutor(max_workers=min(16, len(once))) as pool:
        found = pool.map(lambda name: run_command(["getent", "ahosts", name], _LOOK_UP_SECONDS).returncode, once)
        return {name for name, status in zip(once, found, strict=True) if status == _NOT_FOUND}


def _last_line(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
