"""Whether a model that has a source can be staged: where it goes, what lies there already, and room for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ..model import source
from ..model.codes import Kind
from .findings import Finding, refuse
from .machine import Model
from .topology import Replica

LEAST_ROOM_MIB = 2048
"""Where nobody knows yet how large the model is."""
MARGIN_MIB = 1024
"""What staging leaves free (module_utils/model/stage.py: MARGIN)."""
STAGE = "ansible-playbook playbooks/stage_model.yml --limit"


@dataclasses.dataclass(frozen=True)
class Staging:
    """What the inventory says of staging.

    Attributes:
        source: as manifests name it; None where it is none.
        folder: of models.
        problem: what is wrong with the source; empty where nothing is.
    """

    source: str | None
    folder: str
    problem: str = ""


def asked_for(settings: Mapping[str, Any]) -> Staging | None:
    """What is to be staged, from the variables of a replica's head; None where nothing is."""
    given = settings.get("model_source")
    if not given:
        return None
    folder = str(settings.get("model_folder") or "").rstrip("/")
    try:
        found = source.parse(str(given), str(settings.get("model_revision") or "main"))
    except source.BadSource as error:
        return Staging(None, folder, error.stop.cause)
    if found.kind is Kind.HTTP and not found.place.startswith("https:") and not settings.get("model_checksums"):
        problem = "model_source is fetched over http:// with checksums from the same place, which proves nothing: use https, or"
        return Staging(None, folder, f"{problem} give model_checksums")
    return Staging(found.name, folder)


def findings(
    replica: Replica, path: str, models: Mapping[str, Model], staging: Staging, stages: bool
) -> Iterator[Finding]:
    """What keeps a model from being staged, or from being what was staged.

    Args:
        path: where it is to be: ``vllm_server_model``.
        models: per host that answered, what is there.
        stages: whether this run stages it.
    """
    where = f"{replica.head} ({replica.name})"
    if staging.problem:
        yield refuse(f"{where}: {staging.problem}")
    if path.rstrip("/").rpartition("/")[0] != staging.folder:
        yield refuse(
            f"{where}: model_source is set, and vllm_server_model {path} is no folder right below model_folder: write "
            f"{staging.folder}/{path.rstrip('/').rpartition('/')[2]}"
        )
        return
    for host, model in models.items():
        if model.error:
            continue  # said by whoever looks at the model
        if model.kind == "absent" and not stages:
            yield refuse(f"{host} ({replica.name}): there is no {path}: it has not been staged yet", f"{STAGE} {host}")
        elif model.kind == "absent":
            yield from _room(f"{host} ({replica.name})", path, model, models)
        elif model.staged is None:
            yield refuse(
                f"{host} ({replica.name}): {path} is there, and staging did not make it: name another folder by "
                "vllm_server_model, remove that one, or leave model_source out"
            )
        elif staging.source not in (None, model.staged.source):
            yield refuse(
                f"{host} ({replica.name}): {path} was staged from {model.staged.source}, not from {staging.source}: name "
                "another folder by vllm_server_model, as what serves is never replaced in its place"
            )
        elif model.staged.lacking:
            lacking = model.staged.lacking
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            yield refuse(
                f"{host} ({replica.name}): {path}/{lacking[0]}{more} is missing or of another length than its manifest says",
                f"{STAGE} {host}",
            )
    yield from _unlike(replica, path, models)


def _room(where: str, path: str, model: Model, models: Mapping[str, Model]) -> Iterator[Finding]:
    """Another host that has it tells how large it is."""
    known = max((other.staged.mib for other in models.values() if other.staged), default=None)
    needed = LEAST_ROOM_MIB if known is None else known + MARGIN_MIB
    if model.free_mib is not None and model.free_mib < needed:
        why = (
            "too few for any model"
            if known is None
            else f"the model has {known} MiB, beside {MARGIN_MIB} that stay free"
        )
        yield refuse(
            f"{where}: {model.free_mib} MiB are free for {path}, {why}: make room, prune models that nobody wants, or name "
            "another disk by model_folder",
            "ansible-playbook playbooks/prune_models.yml --check",
        )


def _unlike(replica: Replica, path: str, models: Mapping[str, Model]) -> Iterator[Finding]:
    """Hosts of one replica that staged different files; the head's count."""
    digests = {host: model.staged.digest for host, model in models.items() if model.staged}
    usual = digests.get(replica.head) or next(iter(digests.values()), "")
    for host, digest in digests.items():
        if digest != usual:
            yield refuse(
                f"{host} ({replica.name}): {path} was staged with other files than on {replica.head}: remove it on {host}, and "
                "stage it again",
                f"{STAGE} {host}",
            )
