"""Why a run must not begin: each line names the cause, the host and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..core.stop import Stop
from ..runtime import state as runtime_state
from . import driver_request, own_ports
from .driver_request import Known
from .needs import Desired, HostNeed, driver_reason
from .observed import HostState, Observed
from .settings import Settings
from .states import Step
from .topology import Replica

NEEDED_FREE_MIB = {Step.DRIVER: {"/var": 2048}, Step.RUNTIME: {"/opt": 4096}}
SECRETS = ("ray_node_token", "vllm_server_api_key")
SHORTEST_SECRET = 32
"""Characters: fewer can be guessed from what they protect."""
RAYS_OWN = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
"""Variables of Ray that ray_node sets from the token, and nobody else."""
ALIKE = ("nvidia_driver_version", "serving_runtime_lock", "ray_node_port", "ray_node_ports")
"""Settings in which the hosts of one replica must not differ."""


def cut_replicas(asked: Iterable[Replica], allowed: set[str]) -> Iterator[Stop]:
    """Replicas of which ``--limit`` names only a part."""
    for replica in asked:
        missing = [host for host in replica.hosts if host not in allowed]
        if missing:
            yield Stop(
                f"--limit leaves out {', '.join(missing)} of {replica.name}: a replica is changed as a whole",
                f"ansible-playbook … --limit {replica.name}",
            )


def unanswered(asked: Iterable[Replica], observed: Mapping[str, Observed]) -> Iterator[Stop]:
    """Hosts that could not be probed."""
    for replica in asked:
        for host in replica.hosts:
            answer = observed[host]
            if answer.state is not None:
                continue
            if answer.unresolved:
                yield unresolved(host, answer.unresolved)
            elif answer.reachable:
                yield Stop("cannot be probed", f"ansible {host} -m lockstep.vllm.host_probe", host, answer.error or "")
            else:
                yield Stop(
                    "unreachable: bring it back or remove it from the inventory",
                    f"ansible {host} -m ansible.builtin.ping",
                    host,
                    answer.error or "",
                )


def unresolved(host: str, name: str) -> Stop:
    """Of a host that cannot be reached because its name means no address on the controller."""
    if name == host:
        cause = (
            "it has no ansible_host, and its name does not resolve on this controller: set ansible_host to its address"
        )
        return Stop(cause, f"ansible {host} -m ansible.builtin.ping", host)
    cause = "its ansible_host does not resolve on this controller: correct it, or repair DNS"
    return Stop(cause, f"ansible {host} -m ansible.builtin.ping", host, name)


def replica_refusals(
    replica: Replica,
    desired: Mapping[str, Desired],
    observed: Mapping[str, Observed],
    needs: Mapping[str, HostNeed],
    known: Known,
) -> tuple[list[Stop], list[Stop]]:
    """Refusals and warnings for one replica whose hosts have all answered."""
    refusals: list[Stop] = []
    warnings: list[Stop] = []
    states = {host: state for host in replica.hosts if (state := observed[host].state) is not None}
    for host, state in states.items():
        refusals += host_refusals(host, desired[host].settings, state, needs[host])
        runtime = desired[host].runtime if Step.RUNTIME in needs[host].steps else None
        bad, suspect = driver_request.findings(host, desired[host].settings, state, known, runtime)
        refusals += bad
        warnings += suspect
    refusals += _uneven(replica, desired)
    kept = {host: state.runtime for host, state in states.items() if Step.RUNTIME not in needs[host].steps}
    if len(kept) == len(replica.hosts):
        refusals += [
            Stop(line, f"ansible-playbook playbooks/verify.yml --limit {replica.name}", replica.name)
            for line in runtime_state.differences(kept)
        ]
    return refusals, warnings


def host_refusals(host: str, settings: Settings, state: HostState, need: HostNeed) -> list[Stop]:
    """Why this host must not be changed as the inventory declares it."""
    lines = [
        Stop(line, where=host)
        for check in (_system, _secrets, _driver, _network, _disk, _ray_environment)
        for line in check(settings, state, need)
    ]  # fmt: skip
    return [*_address(host, settings, state), *lines]


def _system(settings: Settings, state: HostState, need: HostNeed) -> Iterator[str]:
    family = {state.distribution, *state.like.split()}
    if need.steps and not family & {"debian", "ubuntu"}:
        shown = f"{state.distribution} {state.version}"
        yield f"{shown} is not supported: use Debian 12 or later, or Ubuntu 22.04 or 24.04"
    for name in ("gpu_host_gpus", "nvidia_driver_version"):
        if settings.get(name) in (None, ""):
            yield f"{name} is not set; see inventories/examples"


def _secrets(settings: Settings, _state: HostState, _need: HostNeed) -> Iterator[str]:
    for name in SECRETS:
        secret = settings.get(name)
        if secret is not None and len(str(secret)) < SHORTEST_SECRET:
            yield f"{name} is shorter than {SHORTEST_SECRET} characters: make one with openssl rand -hex 32"
    previous = settings.get("vllm_server_api_keys_previous") or ()
    if previous and not settings.get("vllm_server_api_key"):
        yield "vllm_server_api_keys_previous is set, and vllm_server_api_key is not: previous keys go beside a key"
    if any(len(str(key)) < SHORTEST_SECRET for key in previous):
        yield f"vllm_server_api_keys_previous holds a key that is shorter than {SHORTEST_SECRET} characters"
    if previous and any(str(key).startswith("-") for key in (settings.get("vllm_server_api_key"), *previous)):
        yield "vllm_server_api_keys_previous: vLLM takes no key that begins with a dash beside others"


def _driver(settings: Settings, state: HostState, need: HostNeed) -> Iterator[str]:
    if Step.DRIVER not in need.steps:
        return
    if settings.get("nvidia_driver_source") == "verify":
        reason = driver_reason(settings, state)
        if reason:
            version = settings.get("nvidia_driver_version")
            yield f"{reason}, and nvidia_driver_source is 'verify': the platform's owner has to install {version} here"


def _address(host: str, settings: Settings, state: HostState) -> Iterator[Stop]:
    address, interface = settings.get("gpu_host_address"), str(settings.get("gpu_host_interface"))
    if state.networks is None or any(each.address == address for each in state.networks.get(interface, ())):
        return
    cause = f"gpu_host_address is not on {interface}: set gpu_host_interface or gpu_host_address"
    yield Stop(cause, where=host, detail=f"{address}; the host has {state.interfaces}")


def _network(settings: Settings, state: HostState, need: HostNeed) -> Iterator[str]:
    if state.preflight.error:
        yield f"its preflight could not be done: {state.preflight.error}"
    if not need.steps:
        return
    routers = {str(port) for taken in own_ports.of_router(settings).values() for port in taken}
    for port, owner in sorted(state.preflight.taken_ports.items()):
        if port in routers:
            continue  # the router's: its own refusals tell HAProxy from others
        yield f"port {port} is taken by {owner}: stop it, or choose another port"
    if not settings.get("gpu_host_manage_names", True):
        for problem in state.preflight.name_problems:
            yield f"{problem}. Repair DNS or /etc/hosts, or set gpu_host_manage_names: true"


def _disk(_settings: Settings, state: HostState, need: HostNeed) -> Iterator[str]:
    for step, folders in NEEDED_FREE_MIB.items():
        for folder, least in folders.items():
            free = state.disk_free_mib.get(folder, least)
            if step in need.steps and free < least:
                yield f"{folder} has {free} MiB free, the {step} step needs {least}: make room"


def _ray_environment(settings: Settings, _state: HostState, _need: HostNeed) -> Iterator[str]:
    for name in sorted(RAYS_OWN & set(settings.get("ray_node_environment") or {})):
        yield f"ray_node_environment sets {name}, by which Ray would answer without ray_node_token: take it out"


def _uneven(replica: Replica, desired: Mapping[str, Desired]) -> Iterator[Stop]:
    for name in ALIKE:
        values = {host: desired[host].settings.get(name) for host in replica.hosts}
        if len({str(value) for value in values.values()}) > 1:
            shown = ", ".join(f"{host}={value}" for host, value in values.items())
            cause = f"{name} differs inside the replica ({shown}): set it once, for the whole replica"
            yield Stop(cause, where=replica.name)


def nothing_to_abort(observed: Mapping[str, Observed]) -> str:
    """Why there is no roll to abort, and how to go back all the same."""
    rolls = [answer.state.change.get("roll") for answer in observed.values() if answer.state is not None]
    last = max((roll for roll in rolls if roll and roll.get("over")), key=lambda roll: str(roll["over"]), default=None)
    cause = "there is no roll to abort: no rollout is in progress on any host"
    if last is None:
        return cause
    version = last["from"]["version"]
    return (
        f"{cause}. The last one, which began at driver {version}, completed at {last['over']}: every replica ran what it "
        f"rolled to. To go back: ansible-playbook playbooks/upgrade_driver.yml -e nvidia_driver_version={version}"
    )
