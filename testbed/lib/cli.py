"""The command line: testbed/testbed VERB …"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence

from testbed.lib import cluster, fault_catalog, faults, image, layout, machine, proof, shell, supplies
from testbed.lib.errors import TestbedError, UsageError

PROGRAM = "testbed/testbed"


class Parser(argparse.ArgumentParser):
    """argparse, but with one line instead of the whole usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """Return the parser of the whole command line."""
    top = Parser(
        prog=PROGRAM,
        description="A GPU-less cluster of containers on this machine: stand-in NVIDIA drivers, real Ray and vLLM on CPU.",
        epilog="LOCKSTEP_TESTBED names the instance (default testbed), LOCKSTEP_TESTBED_PREFIX its /24 (default 10.89.77), "
        "LOCKSTEP_TESTBED_SUITE the release of its hosts (bookworm, trixie, noble).",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    verbs.add_parser("build", help="build image, packages, wheels and model; needed once, `up` does it too")
    up = verbs.add_parser("up", help="start the hosts (builds what is missing)")
    up.add_argument(
        "--hosts", type=int, default=2, help="GPU hosts: 2 (a1 a2) or 4 (a1 a2 b1 b2); default 2; with --real also 0"
    )
    up.add_argument("--router", action="store_true", help="and router1")
    up.add_argument(
        "--real", action="store_true", help="and r1, without stand-ins, for NVIDIA's real packages of Debian's archive"
    )
    up.add_argument("--suite", choices=layout.SUITES, help="release of the hosts; default LOCKSTEP_TESTBED_SUITE")
    down = verbs.add_parser("down", help="remove hosts, network and keys of this instance")
    down.add_argument("--all", action="store_true", help="and image, packages, wheels and model")
    status = verbs.add_parser("status", help="what is up")
    status.add_argument("--json", action="store_true")
    execute = verbs.add_parser("exec", help="run a command in a host: exec HOST -- CMD")
    execute.add_argument("host")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    ssh = verbs.add_parser("ssh", help="log in over ssh, or run a command over ssh")
    ssh.add_argument("host")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    reboot = verbs.add_parser("reboot", help="reboot a host")
    reboot.add_argument("host")
    reboot.add_argument("--wait", action="store_true", help="until it greets on ssh again")
    for verb, text in (
        ("cut", "drop all network traffic of a host"),
        ("reconnect", "give it back its network"),
        ("stop", "shut a host down; it stays off"),
        ("start", "switch a host on again"),
        ("replace", "put a new, bare machine in its place: same name and address, another machine id and host key"),
    ):
        verbs.add_parser(verb, help=text).add_argument("host")
    kill = verbs.add_parser("kill", help="take a host's power, or send a signal to one of its processes")
    kill.add_argument("host")
    kill.add_argument("process", nargs="?", help="such as raylet, gcs_server, VLLM::EngineCore")
    kill.add_argument("--signal", default="KILL", help="KILL (default), STOP, CONT, TERM …")
    prove = verbs.add_parser(
        "prove", help="serve the tiny model over a1 and a2 by hand, without the roles, and check its answer"
    )
    prove.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="after --: arguments for vllm serve; default --enforce-eager"
    )
    verbs.add_parser("faults", help="list the faults that can be set")
    fault = verbs.add_parser("fault", help="set a fault, show or clear those of a host")
    fault.add_argument("host")
    fault.add_argument("name", nargs="?")
    fault.add_argument("value", nargs="?")
    fault.add_argument(
        "--when-driver", metavar="VERSION", help="only while this driver version is loaded (or being installed)"
    )
    fault.add_argument("--only-multihost", action="store_true", help="only when ranks are on several hosts")
    fault.add_argument("--clear", action="store_true", help="clear this fault, or all of the host")
    return top


def _build(suite: str, real: bool = False) -> str:
    """Make everything that the hosts need; return the image."""
    with shell.alone(layout.CACHE / "lock"):
        machine.install_missing()
        tag = supplies.build(suite)
        if real:
            supplies.build_real_drivers(suite, tag)
    shell.give_back(layout.CACHE)
    return tag


def _up(arguments: argparse.Namespace) -> None:
    instance = layout.current()
    hosts = layout.hosts_for(arguments.hosts, arguments.router, arguments.real)
    tag = _build(arguments.suite or instance.suite, arguments.real)
    start = time.monotonic()
    with shell.alone(layout.STATE / f"{instance.name}.lock"):
        fresh = cluster.up(instance, hosts, tag)
        cluster.write_facts(instance, supplies.facts())
    shell.give_back(layout.STATE)
    started = f"started {', '.join(fresh)}" if fresh else "nothing to start"
    print(
        f"testbed {instance.name}: {started} ({time.monotonic() - start:.1f} s); up: {', '.join(cluster.nodes(instance))}"
    )


def _down(arguments: argparse.Namespace) -> None:
    instance = layout.current()
    if not shutil.which("podman"):
        print("podman is not installed: nothing to take down")
        return
    with shell.alone(layout.STATE / f"{instance.name}.lock"):
        gone = cluster.down(instance)
    print(f"testbed {instance.name}: removed {', '.join(gone) or 'nothing, nothing was up'}")
    if arguments.all:
        others = [name for name in cluster.instances() if name != instance.name]
        if others:
            kept = f"image, packages, wheels and model are kept, as testbed {', '.join(others)} may use them"
            print(f"{kept}; once it is gone: testbed/testbed down --all")
            return
        image.remove()
        shutil.rmtree(layout.CACHE, ignore_errors=True)
        print("removed image, packages, wheels and model")


def _status(arguments: argparse.Namespace) -> None:
    rows = cluster.status(layout.current())
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(f"testbed {layout.current().name}: nothing is up ({PROGRAM} up)")
        return
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    for line in ({column: column for column in columns}, *rows):
        print("  ".join(line[column].ljust(widths[column]) for column in columns).rstrip())


def _fault(arguments: argparse.Namespace) -> None:
    instance = layout.current()
    if arguments.clear:
        if arguments.value:
            raise UsageError("--clear takes at most the fault's name")
        gone = faults.clear(instance, arguments.host, arguments.name)
        print(f"{arguments.host}: cleared {', '.join(gone) or 'nothing, no such fault was set'}")
    elif arguments.name is None:
        cluster.require(instance, arguments.host)
        print("\n".join(faults.describe(instance, arguments.host)) or f"{arguments.host}: no fault is set")
    else:
        faults.set_fault(
            instance, arguments.host, arguments.name, arguments.value, arguments.when_driver, arguments.only_multihost
        )


def _list_faults() -> None:
    for kind in fault_catalog.KINDS.values():
        value = f" {kind.example}" if kind.required else f" [{kind.example}]" if kind.value else ""
        print(f"{kind.name + value:<36} {kind.effect}")


def _command(argv: list[str], verb: str) -> list[str]:
    """The arguments after HOST, without a leading --."""
    rest = argv[1:] if argv[:1] == ["--"] else argv
    if not rest and verb == "exec":
        raise UsageError("exec needs a command: exec HOST -- CMD")
    return rest


def _ssh(arguments: argparse.Namespace) -> int:
    instance = layout.current()
    layout.known_host(arguments.host)
    config = instance.state / "ssh_config"
    if not config.exists():
        raise UsageError(f"testbed {instance.name} is not up: {PROGRAM} up")
    return os.spawnvp(os.P_WAIT, "ssh", ["ssh", "-F", str(config), arguments.host, *_command(arguments.command, "ssh")])


def dispatch(arguments: argparse.Namespace) -> int:
    """Do what was asked; return the exit status."""
    instance = layout.current()
    match arguments.verb:
        case "build":
            _build(instance.suite)
        case "up":
            _up(arguments)
        case "down":
            _down(arguments)
        case "status":
            _status(arguments)
        case "exec":
            return cluster.execute(instance, layout.known_host(arguments.host), _command(arguments.command, "exec"))
        case "ssh":
            return _ssh(arguments)
        case "reboot":
            cluster.reboot(instance, arguments.host, arguments.wait)
        case "cut":
            faults.set_fault(instance, layout.known_host(arguments.host), "host_cut", None, None, False)
        case "reconnect":
            faults.clear(instance, layout.known_host(arguments.host), "host_cut")
        case "stop":
            cluster.stop(instance, arguments.host)
        case "start":
            cluster.start(instance, arguments.host)
        case "replace":
            layout.known_host(arguments.host)
            with shell.alone(layout.STATE / f"{instance.name}.lock"):
                cluster.replace(instance, arguments.host)
            shell.give_back(layout.STATE)
        case "kill" if arguments.process:
            cluster.kill_process(instance, arguments.host, arguments.process, arguments.signal)
        case "kill":
            cluster.kill(instance, arguments.host)
        case "prove":
            argv = arguments.arguments
            extra = _command(argv, "prove") if argv else ["--enforce-eager"]
            proof.prove(instance, supplies.facts(), extra)
        case "faults":
            _list_faults()
        case "fault":
            _fault(arguments)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command line; return its exit status: 0, 1 for a failure, 2 for bad input."""
    try:
        arguments = parser().parse_args(argv)
        layout.current()
        if arguments.verb not in ("faults", "ssh"):
            shell.become_root([sys.argv[0], *argv])
        return dispatch(arguments)
    except TestbedError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
