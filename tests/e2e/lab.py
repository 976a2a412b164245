"""The testbed and Ansible on it, as the tests of this folder use them: run playbooks, take and compare snapshots of hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible_runner

ROOT = Path(__file__).parents[2]

# What a controller does by itself; everything else is counted as a module execution on the host of the event.
CONTROLLER_ACTIONS = {
    "add_host", "assert", "debug", "fail", "group_by", "include_role", "include_tasks", "include_vars", "import_role",
    "import_tasks", "meta", "pause", "set_fact", "set_stats", "validate_argument_spec",
}  # fmt: skip
# Our actions that ask every host at once from one task: one execution on each host.
FLEET_ACTIONS = {"plan", "probe", "status"}

# Files that decide how a host behaves, with the moment of their last change; and what runs, and since when.
SNAPSHOT = r"""
find /etc /opt/lockstep /var/lib/lockstep /var/lib/dpkg/status /usr/share/keyrings /root /usr/local -xdev \
    \( -path /var/lib/lockstep/engine -o -path /var/lib/lockstep/ray -o -path /var/lib/lockstep/evidence \
       -o -name __pycache__ -o -path /root/.ansible -o -path /opt/lockstep/runtime/\* \) -prune \
    -o \( -type f -o -type l \) -printf 'file %p %T@ %s %m %u\n' | sort
systemctl list-units --no-legend --plain --all --type=service --state=active 'lockstep-*' 'nvidia-*' 'haproxy*' |
    cut -d' ' -f1 | while read -r unit; do
        echo "unit $unit $(systemctl show --value -p ActiveEnterTimestampMonotonic -p MainPID "$unit" | paste -sd' ')"
    done
echo "driver $(cat /sys/module/nvidia/version 2>/dev/null)"
echo "held $(apt-mark showhold | paste -sd' ')"
"""


@dataclasses.dataclass(frozen=True)
class Play:
    """One run of a playbook, from ansible-runner's events."""

    rc: int
    text: str
    events: tuple[Mapping[str, Any], ...]
    seconds: float

    @property
    def stats(self) -> Mapping[str, Mapping[str, int]]:
        for event in reversed(self.events):
            if event["event"] == "playbook_on_stats":
                stats: Mapping[str, Mapping[str, int]] = event["event_data"]
                return stats
        return {}

    def changed(self) -> dict[str, int]:
        return {host: count for host, count in self.stats.get("changed", {}).items() if count}

    def executions(self, fleet: Sequence[str]) -> Counter[str]:
        """Module executions per host. Asking the whole ``fleet`` in one task counts once for each of it."""
        counted: Counter[str] = Counter()
        for event in self.events:
            if event["event"] not in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
                continue
            data = event["event_data"]
            action = str(data.get("resolved_action") or data["task_action"]).rpartition(".")[2]
            if action in FLEET_ACTIONS:
                counted.update(fleet)
            elif action not in CONTROLLER_ACTIONS:
                delegated = (data.get("res") or {}).get("_ansible_delegated_vars") or {}
                counted[delegated.get("ansible_delegated_host", data["host"])] += 1
        counted.pop("localhost", None)
        return counted

    def spent(self, host: str, since: float, until: float) -> float:
        """Seconds that module executions on ``host`` took which began between two moments (Unix seconds)."""
        total = 0.0
        for event in self.events:
            if event["event"] in ("runner_on_ok", "runner_on_failed") and event["event_data"]["host"] == host:
                data = event["event_data"]
                began = datetime.datetime.fromisoformat(data["start"]).replace(tzinfo=datetime.UTC).timestamp()
                controllers = str(data["task_action"]).rpartition(".")[2] in CONTROLLER_ACTIONS
                total += data["duration"] if since <= began <= until and not controllers else 0
        return total

    def failures(self) -> list[str]:
        """The messages of failed tasks and unreachable hosts, each once; of a refused run with its reasons."""
        found: dict[str, None] = {}
        for event in self.events:
            if event["event"] in ("runner_on_failed", "runner_on_unreachable"):
                result = event["event_data"].get("res") or {}
                message = str(result.get("msg") or result)
                found["\n".join([message, *([str(result["reasons"]).rstrip()] if result.get("reasons") else [])])] = (
                    None
                )
        return list(found)

    def explained(self) -> str:
        return f"exit {self.rc}\n{self.text[-6000:]}"


@dataclasses.dataclass(frozen=True)
class Controller:
    """An ``ansible-playbook`` in a session of its own, for tests that end it."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def interrupt(self) -> None:
        """SIGINT to what a terminal's ctrl-C reaches; it ends by itself then."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started, workers and ssh included: what loss of power is to a controller."""
        for pid in [*_below(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a module returned, by host, and what Ansible printed."""

    rc: int
    text: str
    results: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Lab:
    """One instance of the testbed and the inventory that describes it."""

    inventory: Path
    environment: Mapping[str, str]

    # -- the testbed ----------------------------------------------------------------------------------------------------

    def testbed(self, *arguments: str, check: bool = True, deadline: float = 600) -> str:
        done = subprocess.run(
            [ROOT / "testbed/testbed", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"testbed/testbed {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def on(self, host: str, script: str, check: bool = True) -> str:
        """What a shell script prints when root runs it on ``host`` (not through Ansible, not through ssh)."""
        return self.testbed("exec", host, "--", "bash", "-c", script, check=check).strip()

    @property
    def state(self) -> Path:
        """Where the testbed keeps what this instance is made of: keys, addresses, facts."""
        return ROOT / "testbed/.state" / self.environment.get("LOCKSTEP_TESTBED", "testbed")

    def facts(self) -> dict[str, Any]:
        """What only the testbed's build knows, such as the model's known answer."""
        loaded: dict[str, Any] = json.loads((self.state / "facts.json").read_text())
        return loaded

    def address(self, host: str) -> str:
        rows = json.loads(self.testbed("status", "--json"))
        return str(next(row["address"] for row in rows if row["host"] == host))

    def record(self, host: str, path: str) -> dict[str, Any] | None:
        """A record of Lockstep's on ``host``; None when there is none."""
        text = self.on(host, f"cat {path} 2>/dev/null || true")
        loaded: dict[str, Any] | None = json.loads(text) if text else None
        return loaded

    def snapshot(self, hosts: Sequence[str]) -> dict[str, list[str]]:
        """The state of hosts, comparable with ``==``; a line per file, unit, driver, hold."""
        return {host: self.on(host, SNAPSHOT).splitlines() for host in hosts}

    # -- Ansible ------------------------------------------------------------------------------------------------------

    def play(
        self,
        playbook: str = "site.yml",
        *arguments: str,
        extra: Mapping[str, Any] | None = None,
        overlay: str | None = None,
        deadline: float = 1500,
    ) -> Play:
        """Run a playbook of this checkout on the testbed.

        Args:
            arguments: more arguments of ansible-playbook's command line.
            extra: extra variables.
            overlay: a second inventory, as YAML, over the testbed's own.
            deadline: seconds after which the run is ended and has failed.
        """
        with tempfile.TemporaryDirectory(prefix="lockstep-e2e-") as name:
            private = Path(name)
            inventories = [str(self.inventory)]
            if overlay is not None:
                (private / "overlay.yml").write_text(overlay)
                inventories.append(str(private / "overlay.yml"))
            start = time.monotonic()
            runner = ansible_runner.run(
                private_data_dir=str(private),
                project_dir=str(ROOT),
                playbook=str(ROOT / playbook),
                inventory=inventories,
                extravars=dict(extra or {}),
                cmdline=" ".join(arguments) or None,
                envvars={**self.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                settings={"job_timeout": int(deadline), "suppress_env_files": True},
                quiet=True,
            )
            events = tuple(runner.events)
            return Play(
                rc=runner.rc if runner.status != "timeout" else 124,
                text=runner.stdout.read(),
                events=events,
                seconds=time.monotonic() - start,
            )

    @contextlib.contextmanager
    def controller(self, playbook: str, extra: Mapping[str, Any]) -> Iterator[Controller]:
        """A playbook that runs meanwhile; it is ended, if it has not by itself, when the context is left."""
        program = [Path(sys.executable).with_name("ansible-playbook"), "-i", self.inventory, playbook]
        with tempfile.TemporaryDirectory(prefix="lockstep-controller-") as name:
            path = Path(name, "output")
            with path.open("wb") as output:
                process = subprocess.Popen(
                    [*program, "-e", json.dumps(dict(extra))],
                    cwd=ROOT,
                    # Ansible's own screen, whose recap counts changes.
                    env={
                        **os.environ,
                        **self.environment,
                        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            controller = Controller(process, path)
            try:
                yield controller
            finally:
                controller.kill()

    def ask(self, module: str, where: str, deadline: float = 600, **arguments: Any) -> Answer:
        """Run one of this collection's modules on hosts, as ``ansible -m`` does."""
        with tempfile.TemporaryDirectory(prefix="lockstep-e2e-") as private:
            runner = ansible_runner.run(
                private_data_dir=private,
                project_dir=str(ROOT),
                host_pattern=where,
                module=f"lockstep.vllm.{module}",
                module_args=json.dumps(arguments),
                inventory=[str(self.inventory)],
                envvars={**self.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                settings={"job_timeout": int(deadline), "suppress_env_files": True},
                quiet=True,
            )
            results = {
                event["event_data"]["host"]: event["event_data"]["res"]
                for event in runner.events
                if event["event"] in ("runner_on_ok", "runner_on_failed")
            }
            return Answer(runner.rc, runner.stdout.read(), results)

    def status(self, extra: Mapping[str, Any] | None = None, overlay: str | None = None) -> dict[str, Any]:
        """What ``playbooks/status.yml`` returns to programs, cut out of its output as docs/reference/status.md shows."""
        play = self.play("playbooks/status.yml", extra={**(extra or {}), "status_format": "json"}, overlay=overlay)
        assert play.rc == 0, play.explained()
        text = re.sub(r"\x1b\[[0-9;]*m", "", play.text).replace("\r", "")
        found = re.search(r"^\{$.*?^\}$", text, re.MULTILINE | re.DOTALL)
        assert found, play.explained()
        loaded: dict[str, Any] = json.loads(found[0])
        return loaded


def _below(pid: int) -> list[int]:
    """Processes that this one started, and those that they did; Ansible's workers are in sessions of their own."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def eventually(what: str, so: Callable[[], bool], deadline: float, interval: float = 2.0) -> float:
    """Wait until something is so; returns how many seconds it took, and fails at the deadline."""
    start = time.monotonic()
    while not so():
        if time.monotonic() - start > deadline:
            raise AssertionError(f"{what}: not within {deadline:.0f} s")
        time.sleep(interval)
    return time.monotonic() - start


def difference(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What changed between two snapshots; empty when nothing did."""

    def lines(host: str) -> Iterator[str]:
        was, now = set(before[host]), set(after[host])
        yield from (f"- {line}" for line in sorted(was - now))
        yield from (f"+ {line}" for line in sorted(now - was))

    return {host: found for host in before if (found := list(lines(host)))}
