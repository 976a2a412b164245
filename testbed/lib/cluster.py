"""Starting, stopping and breaking the containers of one testbed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.lib import layout, machine, shell
from testbed.lib.errors import TestbedError, UsageError
from testbed.lib.layout import MIRROR, Instance

READY_DEADLINE_S = 90.0
REBOOT_DEADLINE_S = 120.0
REMOVED_WITHIN, PAUSE = 120.0, 2.0
LABEL = "org.lockstep.testbed"
TUN = Path("/dev/net/tun")


@dataclass(frozen=True)
class Node:
    """One container as podman has it. ``state`` is podman's state: running, exited, created."""

    host: str
    state: str
    image: str


def each(hosts: Sequence[str], do: Callable[[str], None]) -> None:
    """Do something for every host at once; raise the first error when all are done."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        futures = [pool.submit(do, host) for host in hosts]
    for future in futures:
        future.result()


def nodes(instance: Instance) -> dict[str, Node]:
    """The containers of this instance, by host."""
    listed = shell.run(
        ["podman", "ps", "--all", "--filter", f"label={LABEL}={instance.name}", "--format", "json"]
    ).stdout
    found = {}
    for entry in json.loads(listed or "[]"):
        host = entry["Labels"][f"{LABEL}.host"]
        found[host] = Node(host, entry["State"], entry["Image"])
    return found


def require(instance: Instance, host: str) -> Node:
    """Return a node that exists, or raise with how to get it."""
    layout.known_host(host)
    found = nodes(instance)
    if host not in found:
        there = f"there are {', '.join(found)}" if found else "nothing is up"
        raise UsageError(f"{host} is not up on testbed {instance.name} ({there}): testbed/testbed up")
    return found[host]


# -- identity ---------------------------------------------------------------------------------------------------------


def ensure_identity(instance: Instance) -> None:
    """Make the instance's login key, each host's key and identity, known_hosts and ssh_config; keep what exists."""
    state = instance.state
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "id_ed25519").exists():
        shell.run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                f"lockstep-testbed-{instance.name}",
                "-f",
                state / "id_ed25519",
            ]
        )
    known = []
    for host in layout.ADDRESSES:
        seed = state / "hosts" / host
        seed.mkdir(parents=True, exist_ok=True)
        key = seed / "ssh_host_ed25519_key"
        if not key.exists():
            shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host, "-f", key])
            (seed / "machine-id").write_text(secrets.token_hex(16) + "\n")
        (seed / "authorized_keys").write_text((state / "id_ed25519.pub").read_text())
        (seed / "hosts").write_text(layout.hosts_file(instance, host))
        if host == layout.REAL:
            (seed / "real").touch()
        (seed / "gateway").write_text("" if host == MIRROR else instance.address(MIRROR))
        known.append(
            f"{instance.address(host)},{host},{host}.{layout.DOMAIN} {key.with_suffix('.pub').read_text().strip()}\n"
        )
    (state / "known_hosts").write_text("".join(known))
    (state / "ssh_config").write_text(layout.ssh_config(instance))


# -- up and down ------------------------------------------------------------------------------------------------------


def ensure_network(instance: Instance) -> None:
    """Make the instance's network: its own /24 and, being internal, without a way out."""
    if shell.run(["podman", "network", "exists", instance.network], check=False).returncode == 0:
        if f"{instance.prefix}.0/24" not in shell.run(["podman", "network", "inspect", instance.network]).stdout:
            raise UsageError(
                f"testbed {instance.name} is up on another prefix than {instance.prefix}: "
                "set LOCKSTEP_TESTBED_PREFIX as it was, or take it down first (testbed/testbed down)"
            )
        return
    done = shell.run(
        ["podman", "network", "create", "--internal", "--subnet", f"{instance.prefix}.0/24", instance.network],
        check=False,
    )
    if done.returncode:
        raise UsageError(
            f"{instance.prefix}.0/24 cannot be had ({done.stderr.strip()}): set LOCKSTEP_TESTBED_PREFIX to another"
        )


def create(instance: Instance, host: str, image: str) -> None:
    """Create and start one node."""
    command = [
        "podman", "--runtime", machine.runtime(), "run", "--detach",
        "--name", instance.container(host), "--hostname", host,
        "--label", f"{LABEL}={instance.name}", "--label", f"{LABEL}.host={host}",
        "--network", instance.network, "--ip", instance.address(host), "--mac-address", instance.mac_address(host),
        "--no-hosts", "--dns=none",
        "--systemd=always", "--restart=always", "--stop-timeout=20",
        "--cap-add=SYS_ADMIN,NET_ADMIN,NET_RAW,SYS_PTRACE", "--shm-size=2g", "--pids-limit=-1", *machine.ulimits(),
        "--volume", f"{instance.state / 'hosts' / host}:/lockstep-seed:ro",
    ]  # fmt: skip
    if TUN.exists():  # for WireGuard, where this machine's kernel has none
        command += ["--device", str(TUN)]
    if host in layout.GPU_HOSTS:
        command += ["--volume", f"{layout.CACHE / 'models'}:/srv/models:ro"]
    if host == MIRROR:
        command += ["--volume", f"{layout.CACHE / 'mirror'}:/srv/mirror:ro"]
    shell.run([*command, image, "/usr/lib/lockstep-testbed/init"])


def ssh_answers(instance: Instance, host: str) -> bool:
    """Whether sshd greets, asked over the network as Ansible will ask."""
    try:
        with socket.create_connection((instance.address(host), 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_until(what: str, ready: Callable[[], bool], deadline: float, poll: float = 0.2) -> None:
    """Wait until something is so, at most ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while not ready():
        if time.monotonic() > end:
            raise TestbedError(f"{what}: not within {deadline:.0f} s")
        time.sleep(poll)


def system_state(instance: Instance, host: str) -> str:
    """systemd's state of a node: running, degraded, starting, or '' when it does not answer."""
    done = shell.run(["podman", "exec", instance.container(host), "systemctl", "is-system-running"], check=False)
    return done.stdout.strip()


def wait_ready(instance: Instance, host: str, deadline: float = READY_DEADLINE_S) -> None:
    """Wait until a node has booted and greets on ssh."""
    wait_until(f"ssh on {host}", lambda: ssh_answers(instance, host), deadline)
    wait_until(f"systemd on {host}", lambda: system_state(instance, host) in ("running", "degraded"), deadline)


def up(instance: Instance, hosts: Sequence[str], image: str) -> list[str]:
    """Bring these hosts up; return those that were started now."""
    machine.raise_inotify_limit()
    ensure_identity(instance)
    ensure_network(instance)
    present = nodes(instance)
    fresh = [host for host in hosts if host not in present]
    asleep = [host for host in hosts if host in present and present[host].state != "running"]
    each(fresh, lambda host: create(instance, host, image))
    each(asleep, lambda host: start(instance, host))
    each(hosts, lambda host: wait_ready(instance, host))
    return [*fresh, *asleep]


def down(instance: Instance) -> list[str]:
    """Remove this instance: containers, network, keys. Return the hosts that were there."""
    present = nodes(instance)
    if present:
        _remove([instance.container(host) for host in present])
    if shell.run(["podman", "network", "exists", instance.network], check=False).returncode == 0:
        shell.run(["podman", "network", "rm", "--force", instance.network])
    shutil.rmtree(instance.state, ignore_errors=True)
    return sorted(present)


def _remove(containers: Sequence[str]) -> None:
    """A container that does not die in podman's time, as on a busy machine, is asked again."""
    ends = time.monotonic() + REMOVED_WITHIN
    while True:
        done = shell.run(["podman", "rm", "--force", "--ignore", "--time", "0", *containers], check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > ends:
            raise TestbedError(f"podman rm: {done.stderr.strip()}\nstill there after {REMOVED_WITHIN:.0f} s")
        time.sleep(PAUSE)


# -- one host ---------------------------------------------------------------------------------------------------------


def execute(instance: Instance, host: str, command: Sequence[str]) -> int:
    """Run a command in a node with our terminal; return its status."""
    require(instance, host)
    interactive = ["--interactive", *(["--tty"] if os.isatty(0) and os.isatty(1) else [])]
    return os.spawnvp(os.P_WAIT, "podman", ["podman", "exec", *interactive, instance.container(host), *command])


def inside(instance: Instance, host: str, *command: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command in a node; return what it printed."""
    flags = ["--interactive"] if stdin is not None else []
    return shell.run(["podman", "exec", *flags, instance.container(host), *command], stdin=stdin, check=check).stdout


def boot_id(instance: Instance, host: str) -> str:
    """The node's boot id, or '' while it is not running."""
    done = shell.run(
        ["podman", "exec", instance.container(host), "cat", "/proc/sys/kernel/random/boot_id"], check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def reboot(instance: Instance, host: str, wait: bool) -> None:
    """Reboot a node in an orderly way, as ``systemctl reboot`` on it would."""
    require(instance, host)
    before = boot_id(instance, host)
    inside(instance, host, "systemctl", "reboot", check=False)
    if wait:
        wait_until(f"new boot of {host}", lambda: boot_id(instance, host) not in ("", before), REBOOT_DEADLINE_S)
        wait_ready(instance, host, REBOOT_DEADLINE_S)


def stop(instance: Instance, host: str) -> None:
    """Shut a node down; it stays off until ``start``."""
    require(instance, host)
    shell.run(["podman", "stop", "--time", "20", instance.container(host)])


def start(instance: Instance, host: str) -> None:
    """Switch a node on that ``stop`` or ``kill`` left off."""
    require(instance, host)
    shell.run(["podman", "start", instance.container(host)])


def kill(instance: Instance, host: str) -> None:
    """Take the power from a node: nothing is written, nothing is closed. It stays off until ``start``."""
    require(instance, host)
    shell.run(["podman", "stop", "--time", "0", instance.container(host)])


def replace(instance: Instance, host: str) -> None:
    """Put a new machine in a node's place: bare, with its name and address, and with a machine id and a host key of its own."""
    image = require(instance, host).image
    _remove([instance.container(host)])
    shutil.rmtree(instance.state / "hosts" / host)
    up(instance, [host], image)


def kill_process(instance: Instance, host: str, process: str, signal: str) -> None:
    """Send a signal to every process of a node with this name (the start of its title, such as raylet)."""
    require(instance, host)
    done = shell.run(
        [
            "podman",
            "exec",
            instance.container(host),
            "pkill",
            f"-{signal}",
            "-f",
            f"^([^ ]*/)?(python[0-9.]* )?([^ ]*/)?{process}",
        ],
        check=False,
    )
    if done.returncode:
        raise TestbedError(f"no process {process} on {host}")


def status(instance: Instance) -> list[dict[str, str]]:
    """What is up: host, address, container state, systemd's state, driver loaded, faults set."""
    rows = []
    for host, node in sorted(nodes(instance).items(), key=lambda item: layout.ADDRESSES[item[0]]):
        row = {
            "host": host,
            "address": instance.address(host),
            "state": node.state,
            "system": "",
            "driver": "",
            "faults": "",
        }
        if node.state == "running":
            script = (
                "systemctl is-system-running; cat /sys/module/nvidia/version 2>/dev/null || echo -; "
                "ls /var/lib/lockstep-testbed/faults | paste -sd,"
            )
            lines = inside(instance, host, "sh", "-c", script, check=False).splitlines()
            lines = [*lines, "", "", ""]
            row |= {"system": lines[0], "driver": lines[1].replace("-", ""), "faults": lines[2]}
        rows.append(row)
    return rows


def write_facts(instance: Instance, facts: dict[str, str]) -> None:
    """Leave for the inventory what only the build knows (checksum of the keyring, the model's answer)."""
    path: Path = instance.state / "facts.json"
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def instances() -> list[str]:
    """Names of all instances that have containers on this machine."""
    listed = json.loads(
        shell.run(["podman", "ps", "--all", "--filter", f"label={LABEL}", "--format", "json"]).stdout or "[]"
    )
    return sorted({entry["Labels"][LABEL] for entry in listed})
