"""The cost of a run that changes nothing, over many simulated hosts, against plain ssh.

sshds of our own, started from a temporary folder with their own keys, listen on one loopback address per host. In turn,
several times over:

  plain     one `ssh host python3` each, as many at once as Ansible's forks, running an empty program
  same      the same, running the very program that the probe runs on a host
  probe     `ansible-playbook` with the one task that a run costs a host that is up to date

The ratio to beat is probe / plain (goal: 1.3). probe / same shows what Ansible itself adds. Each is given in seconds and in
processor seconds of all that took part, sshds and simulated hosts included, which other load on the machine changes little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FORKS = 64
LISTEN_SOCKETS = 16  # as many as one sshd takes (MAX_LISTEN_SOCKS in its sources)
GOAL = 1.3


def addresses(count: int) -> list[str]:
    return [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keys(folder: Path, hosts: list[str]) -> tuple[int, list[str]]:
    """Make keys for sshds of our own; a port for them, and the ssh options that reach them, pinned host key included."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # root's sshd insists on it
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text("".join(f"[{host}]:{port} {host_key}\n" for host in hosts))
    return port, [
        "-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes",
        "-o", f"IdentityFile={folder / 'user'}", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR",
    ]  # fmt: skip


@contextlib.contextmanager
def sshds(folder: Path, hosts: list[str], port: int) -> Iterator[None]:
    """Our own sshds, answering on every address."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    if program is None:
        sys.exit("benchmark: there is no sshd here. Next: apt-get install openssh-server")
    with contextlib.ExitStack() as daemons:
        for number in range(0, len(hosts), LISTEN_SOCKETS):
            daemons.enter_context(daemon(program, folder, hosts[number : number + LISTEN_SOCKETS], port))
        yield


@contextlib.contextmanager
def daemon(program: str, folder: Path, hosts: list[str], port: int) -> Iterator[None]:
    config = folder / f"sshd_config.{hosts[0]}"
    config.write_text(
        "".join(f"ListenAddress {host}:{port}\n" for host in hosts)
        + f"HostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\nPidFile none\nUsePAM no\n"
        + "PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nPermitRootLogin yes\n"
        + "MaxStartups 1000\nUseDNS no\nPrintMotd no\nLogLevel QUIET\n"
    )
    process = subprocess.Popen([program, "-D", "-e", "-f", config])
    try:
        deadline = time.monotonic() + 10
        while not answers(hosts[-1], port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"benchmark: sshd does not listen on {hosts[-1]}:{port} (exit {process.poll()})")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def plain_ssh(hosts: list[str], port: int, options: list[str], program: bytes, python_options: str = "-B -") -> None:
    def one(host: str) -> None:
        command = ["ssh", "-p", str(port), "-o", "BatchMode=yes", *options, host, f"/usr/bin/python3 {python_options}"]
        done = subprocess.run(command, input=program, capture_output=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{host}: {done.stderr.decode()[-1000:]}")

    with ThreadPoolExecutor(FORKS) as pool:
        try:
            list(pool.map(one, hosts))
        except RuntimeError as error:
            sys.exit(f"benchmark: {error}")


def write_inventory(folder: Path, hosts: list[str], port: int, options: list[str]) -> Path:
    """Replicas of two hosts each, with every variable that the probe reads."""
    replicas: dict[str, object] = {}
    for number in range(0, len(hosts), 2):
        members = {
            f"sim{number + place}": {
                "ansible_host": address,
                "gpu_host_address": address.replace(
                    "127.", "10.", 1
                ),  # nobody connects there; loopback means no cluster
                "ray_node_role": "worker" if place else "head",
            }
            for place, address in enumerate(hosts[number : number + 2])
        }
        replicas[f"replica_{number // 2}"] = {"hosts": members}
    variables = {
        "ansible_port": port,
        "ansible_user": os.environ.get("USER") or "root",
        "ansible_ssh_common_args": " ".join(options),
        "gpu_host_interface": "lo",
        "gpu_host_gpus": 1,
        "nvidia_driver_version": "550.127.05",
        "nvidia_driver_source": "verify",
        "ray_node_token": "not-a-secret",
        "vllm_server_model": "none",
    }
    path = folder / "inventory.yml"
    path.write_text(yaml.safe_dump({"lockstep": {"children": replicas, "vars": variables}}))
    return path


def run_probe(inventory: Path, home: Path, tree: Path = ROOT) -> None:
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(tree / "ansible.cfg"),
        "ANSIBLE_FORKS": str(FORKS),
        "ANSIBLE_HOME": str(home),
        # A fresh connection to each host, as plain ssh has: nothing left over from the round before.
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
    }
    playbook = tree / "benchmarks/noop_fleet/probe.playbook.yml"
    command = ["ansible-playbook", "-i", inventory, playbook]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"benchmark: the probe failed\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def probe_program(hosts: list[str]) -> tuple[bytes, str]:
    """The program, and the options that Python gets for it."""
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import fleet

    text = fleet.program("host.probe", "collect", {"peers": dict.fromkeys(hosts[:2], hosts[0])})
    return text.encode(), fleet.PYTHON_OPTIONS


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor_seconds() -> float:
    """What all children that have ended, and theirs, have used of a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(count: int, rounds: int) -> dict[str, object]:
    hosts = addresses(count)
    with tempfile.TemporaryDirectory(prefix="lockstep-noop-") as name:
        port, options = keys(Path(name), hosts)
        inventory = write_inventory(Path(name), hosts, port, options)
        program, python_options = probe_program(hosts)
        ways: dict[str, Callable[[], None]] = {
            "plain": lambda: plain_ssh(hosts, port, options, b"pass"),
            "same": lambda: plain_ssh(hosts, port, options, program, python_options),
            "probe": lambda: run_probe(inventory, Path(name) / "home"),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        used: dict[str, list[float]] = {way: [] for way in ways}
        with sshds(Path(name), hosts, port):
            plain_ssh(hosts, port, options, b"pass")  # warms the disk cache; not counted
        for _round in range(rounds):
            for way, work in ways.items():
                before = processor_seconds()
                with sshds(Path(name), hosts, port):
                    taken[way].append(seconds(work))
                used[way].append(processor_seconds() - before)
    median = {way: statistics.median(times) for way, times in taken.items()}
    processor = {way: statistics.median(times) for way, times in used.items()}
    return {
        "hosts": count,
        "rounds": rounds,
        "forks": FORKS,
        "cpus": os.cpu_count(),
        "seconds": {way: [round(value, 2) for value in times] for way, times in taken.items()},
        "median": {way: round(value, 2) for way, value in median.items()},
        "probe_to_plain": round(median["probe"] / median["plain"], 2),
        "probe_to_same": round(median["probe"] / median["same"], 2),
        "processor_median": {way: round(value, 2) for way, value in processor.items()},
        "processor_probe_to_plain": round(processor["probe"] / processor["plain"], 2),
        "processor_probe_to_same": round(processor["probe"] / processor["same"], 2),
        "load": round(os.getloadavg()[0], 1),
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps({"benchmark": "noop_fleet", **measure(arguments.hosts, arguments.rounds)}))


if __name__ == "__main__":
    main()
