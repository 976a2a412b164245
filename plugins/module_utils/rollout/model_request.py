"""Whether every host of a replica has the model that its engine is to load, whole and the same, or somewhere to keep it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from ..core.grouping import grouped
from ..engine.config import Config
from . import staging_request
from .findings import Finding, refuse, warn
from .machine import Model
from .observed import HostState
from .staging_request import Staging
from .topology import Replica

HOME = "/var/lib/lockstep/engine"
"""Of the user ``lockstep``, as both units set it."""
WRITABLE = (HOME, "/var/lib/lockstep/ray", "/run/lockstep", "/tmp", "/dev/shm")
"""What both units may write: ProtectSystem=strict leaves the rest read-only."""
HIDDEN = ("/home", "/root", "/run/user")
"""What ProtectHome=yes hides from both units."""
LEAST_ROOM_MIB = 2048
"""Less than this is taken for a disk that is full: no model that needs several hosts fits."""
_HUB_NAME = re.compile(r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::[\w.-]+)?")  # what follows a colon names a file of several
_TRUE = {"1", "ON", "YES", "TRUE"}
# Formats of --load-format whose weights are files that we know by their names.
_FILES_OF_WEIGHTS = ("auto", "hf", "safetensors", "pt", "mistral", "gguf")


def findings(
    replica: Replica,
    config: Config,
    states: Mapping[str, HostState],
    staging: Staging | None = None,
    stages: bool = False,
) -> Iterator[Finding]:
    """What keeps the hosts from loading the model.

    Args:
        config: of the replica's engine.
        states: of the hosts that answered.
        staging: what stages the model; None where nothing does.
        stages: whether this run stages it.
    """
    path = path_asked_for(config)
    fetched = _is_fetched(config)
    probed = {host: state.preflight.model for host, state in states.items()}
    models = {host: model for host, model in probed.items() if model is not None}
    if staging is not None:
        yield from staging_request.findings(replica, config.model, models, staging, stages)
        there = {host: model for host, model in models.items() if model.kind != "absent" or model.error}
        if config.model.startswith("/"):
            yield from _at_path(replica, config, there)
    elif config.model.startswith("/"):
        yield from _at_path(replica, config, models)
    elif fetched:
        yield from _cache(replica, config, states)
    elif path is not None:
        yield from _cached(replica, config, path, states)
    elif "://" not in config.model and not _HUB_NAME.fullmatch(config.model):
        yield refuse(
            f"{replica.head} ({replica.name}): vllm_server_model {config.model} is neither an absolute path nor a name such as "
            "owner/model: write a path from / on"
        )


def path_asked_for(config: Config) -> str | None:
    """The path that the hosts are asked about: of the model, or of where it is kept once fetched; None for none."""
    if config.model.startswith("/"):
        return config.model.rstrip("/") or "/"
    named = _HUB_NAME.fullmatch(config.model)
    if named and (_offline(config) or _is_fetched(config)):
        return f"{_hub_cache(config)[1]}/models--{named[1].replace('/', '--')}"
    return None


def _is_fetched(config: Config) -> bool:
    """Whether the engine fetches the model from Hugging Face's hub by itself."""
    elsewhere = config.environment.get("VLLM_USE_MODELSCOPE", "").upper() in _TRUE
    return bool(_HUB_NAME.fullmatch(config.model)) and not elsewhere and not _offline(config)


def _offline(config: Config) -> bool:
    given = config.environment
    return any(given.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _hub_cache(config: Config) -> tuple[str, str]:
    """What decides where models from the hub are kept, and where that is, as huggingface_hub and vLLM have it."""
    given = config.environment
    folder = config.arguments.get("download_dir")
    if folder:
        return "download-dir in vllm_server_args", str(folder)
    for name, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "/hub"),
        ("XDG_CACHE_HOME", "/huggingface/hub"),
    ):
        if given.get(name):
            return f"{name} in vllm_server_environment", given[name].rstrip("/") + below
        if name == "HF_HOME" and config.cache:
            return "vllm_server_cache", f"{config.cache}/hub"
    return "the default", f"{given.get('HOME') or HOME}/.cache/huggingface/hub"


def _cache(replica: Replica, config: Config, states: Mapping[str, HostState]) -> Iterator[Finding]:
    """Of a model that is fetched: it has to be kept somewhere, and to fit."""
    source, folder = _hub_cache(config)
    if config.cache and _below(folder, HIDDEN):
        yield refuse(
            f"{replica.head} ({replica.name}): {folder} ({source}) is hidden from the engine (ProtectHome=yes): name another, "
            "for example /srv/cache"
        )
    elif not _below(folder, (*WRITABLE, *((config.cache,) if config.cache else ()))):
        yield refuse(
            f"{replica.head} ({replica.name}): vllm_server_model {config.model} would be kept in {folder} ({source}), which "
            "the engine may not write: name the folder by vllm_server_cache instead, leave it out (then it is "
            f"{HOME}/.cache/huggingface), or fetch the model yourself and give its path"
        )
    for host, state in states.items():
        model = state.preflight.model
        if model is None or model.free_mib is None or model.kind != "absent":
            continue  # not known, or fetched already
        if model.free_mib < LEAST_ROOM_MIB:
            yield refuse(
                f"{host} ({replica.name}): {model.free_mib} MiB are free for {folder} ({source}), too few for any model: make "
                "room, or name another disk by vllm_server_cache",
                f"ansible {host} --become -m ansible.builtin.command -a 'df -h {folder.rpartition('/')[0]}'",
            )


def _cached(replica: Replica, config: Config, path: str, states: Mapping[str, HostState]) -> Iterator[Finding]:
    """Of a model that may not be fetched: it has to be there already."""
    if _below(path, HIDDEN):
        yield refuse(
            f"{replica.head} ({replica.name}): {path} is hidden from the engine (ProtectHome=yes): keep models elsewhere"
        )
    offline = "vllm_server_environment forbids fetching (HF_HUB_OFFLINE)"
    for host, state in states.items():
        model = state.preflight.model
        if model is not None and model.error:
            yield refuse(f"{host} ({replica.name}): {path} cannot be read: {model.error}", _listing([host], path))
    without = [host for host, state in states.items() if (found := state.preflight.model) and found.kind == "absent"]
    if without:
        yield refuse(
            f"{', '.join(without)} ({replica.name}): {offline}, and {config.model} is not in the cache: there is no {path}. "
            "Fetch it there, or give the model's path",
            _listing(without, path),
        )


def _at_path(replica: Replica, config: Config, models: Mapping[str, Model]) -> Iterator[Finding]:
    path, name = config.model, replica.name
    if _below(path, HIDDEN):
        yield refuse(
            f"{replica.head} ({name}): vllm_server_model {path} is hidden from the engine (ProtectHome=yes): move it, for "
            "example to /srv/models"
        )
    load_format = str(config.arguments.get("load_format") or "auto")
    problems = {host: list(_problems(path, model, load_format)) for host, model in models.items()}
    alike = grouped((problem, host) for host, mine in problems.items() for problem in mine)
    for problem, hosts in alike.items():
        yield refuse(f"{', '.join(hosts)} ({name}): {problem}", _listing(hosts, path))
    there = {host: model for host, model in models.items() if not model.error and model.kind != "absent"}
    unreadable = [host for host, model in there.items() if model.unreadable_for == "lockstep"]
    if unreadable:
        yield refuse(
            f"{', '.join(unreadable)} ({name}): the user lockstep, who runs the engine, cannot read {path}",
            f"ansible {':'.join(unreadable)} --become -m ansible.builtin.file -a 'path={path} mode=a+rX recurse=true'",
        )
    closed = [host for host, model in there.items() if model.unreadable_for not in (None, "lockstep")]
    if closed:
        yield warn(
            f"{', '.join(closed)} ({name}): {path} is not readable for everybody; the user lockstep, who will run the engine, "
            "has to be able to read it"
        )
    yield from _different(replica, path, there)


def _problems(path: str, model: Model, load_format: str) -> Iterator[str]:
    if model.error:
        yield f"{path} cannot be read: {model.error}"
    elif model.kind == "absent":
        yield f"there is no {path} (vllm_server_model): copy the model there; every host of the replica needs it at this path"
    else:
        yield from (f"{path} {incomplete}: copy it anew" for incomplete in _incomplete(model, load_format))


def _incomplete(model: Model, load_format: str) -> Iterator[str]:
    if model.kind != "folder":
        return
    if not {"config.json", "params.json"} & set(model.files):
        yield "holds neither config.json nor params.json"
    for name, (_size, digest) in model.files.items():
        if digest is None:
            yield f"has a {name} that cannot be read or is no JSON"
    if model.missing:
        more = f" and {len(model.missing) - 1} more" if len(model.missing) > 1 else ""
        yield f"lacks {model.missing[0]}{more}, which its index names"
    elif not model.weights and load_format in _FILES_OF_WEIGHTS:
        yield "holds no weights"


def _different(replica: Replica, path: str, models: Mapping[str, Model]) -> Iterator[Finding]:
    """Hosts whose model is another than that of most; of two kinds that are as common, the head's counts."""
    content = {host: tuple(sorted(model.content.items())) for host, model in models.items()}
    count = Counter(content.values())
    if len(count) < 2:
        return
    most = max(content, key=lambda host: (count[content[host]], host == replica.head))
    for host, model in models.items():
        if content[host] != content[most]:
            what = _first_difference(models[most], model)
            yield refuse(
                f"{host} ({replica.name}): {path} is not the model that {most} has: {what}. Copy it from {most} to {host}",
                f'ansible {most}:{host} --become -m ansible.builtin.command -a \'find -L {path} -maxdepth 1 -name "*.json" '
                "-exec sha256sum {} +'",
            )


def _first_difference(usual: Model, other: Model) -> str:
    for name in sorted({*usual.content, *other.content}):
        wanted, found = usual.content.get(name), other.content.get(name)
        if found is None:
            return f"it lacks {name}"
        if wanted is None:
            return f"it has {name} besides"
        if wanted[0] != found[0]:
            return f"{name} has {found[0]} bytes there, {wanted[0]} here"
        if wanted[1] != found[1]:
            return f"{name} has another checksum ({(found[1] or 'none')[:12]}, {(wanted[1] or 'none')[:12]} here)"
    return "another kind of file"


def _listing(hosts: list[str], path: str) -> str:
    return f"ansible {':'.join(hosts)} --become -m ansible.builtin.command -a 'ls -lL {path}'"


def _below(path: str, folders: tuple[str, ...]) -> bool:
    pure = PurePosixPath(path)
    return any(pure.is_relative_to(folder) for folder in folders)
