"""The engine supervisor's entry point: ``python -m lockstep.engine.cli run``, the main process of lockstep-vllm.service.

``drain``, ``resume`` and ``move-up`` leave the running supervisor a request; ``forget-ladder`` has rungs tried anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

from ..admission import stamps
from ..core import host_record, records
from ..core.codes import as_json
from ..core.systemd import credential
from . import cluster, state
from .config import ConfigError, parse
from .record import EngineState
from .replica import Replica
from .states import Phase, Target
from .supervisor import GAVE_UP, Stop, Supervisor


def run() -> int:
    """Run the engine that /etc/lockstep/engine.json asks for."""
    try:
        config = parse(records.read(records.ENGINE_CONFIG) or {})
        host = host_record.stored()
        stamp = stamps.parse_replica_stamp(records.read(records.REPLICA_STAMP))
        if host is None or stamp is None:
            missing = records.HOST if host is None else records.REPLICA_STAMP
            raise records.RecordError(f"{missing} is missing", "ansible-playbook site.yml")
    except (records.RecordError, ConfigError) as error:
        print(f"given up: {error}", file=sys.stderr, flush=True)
        given_up = EngineState(Phase.GIVEN_UP, str(error), records.now(), pid=os.getpid())
        records.write(records.ENGINE_STATE, as_json(given_up))
        return GAVE_UP
    signal.signal(signal.SIGTERM, _on_stop)
    vllm = records.RUNTIME.resolve() / "bin" / "vllm"
    replica = Replica(config, host, stamp, vllm, _api_key(), credential("vllm-api-keys.yml"))
    return Supervisor(replica, cluster.ReplicaCluster(host)).run()


def drain() -> int:
    state.request(Target.DRAINED, "asked on the command line")
    return 0


def resume() -> int:
    state.request(Target.SERVING, "")
    return 0


def move_up() -> int:
    state.request_move_up()
    return 0


def forget_ladder() -> int:
    records.remove(state.LADDER)
    return 0


COMMANDS: dict[str, tuple[Callable[[], int], str]] = {
    "run": (run, "serve until stopped (0) or until starting again cannot help (78)"),
    "drain": (drain, "take no more traffic and let running requests end; a reboot forgets it"),
    "resume": (resume, "serve again"),
    "move-up": (move_up, "replace a smaller layout by a better one as soon as its hosts are there"),
    "forget-ladder": (forget_ladder, "try every rung anew at the next start"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lockstep.engine.cli", description=str(__doc__).partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return COMMANDS[parser.parse_args(arguments).command][0]()


def _api_key() -> str | None:
    """The API key from systemd's credential; it is in no command line and in no file of this process."""
    path = credential("vllm-api-key")
    return None if path is None else path.read_text(encoding="utf-8").strip() or None


def _on_stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stop


if __name__ == "__main__":
    sys.exit(main())
