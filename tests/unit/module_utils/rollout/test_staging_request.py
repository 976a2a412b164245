"""What preflight says of a model that is staged: where it goes, what lies there, and room."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import staging_request
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.machine import Model, Staged
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.topology import Replica

REPLICA = Replica("replica_a", "a1", ("a2",), {"a1": "10.0.0.1", "a2": "10.0.0.2"})
SETTINGS = {"model_source": "hub:owner/tiny", "model_folder": "/srv/models"}
PATH = "/srv/models/tiny"
GOOD = Staged("hub:owner/tiny@main", "d1", 5000)
WHOLE = Model(PATH, "folder", staged=GOOD)
ABSENT = Model(PATH, "absent", free_mib=9000)


def said(
    models: dict[str, Model], settings: dict[str, Any] = SETTINGS, path: str = PATH, stages: bool = True
) -> list[tuple[str, str]]:
    staging = staging_request.asked_for(settings)
    assert staging is not None
    found = staging_request.findings(REPLICA, path, models, staging, stages)
    return [(each.stop.cause, each.stop.next) for each in found]


@pytest.mark.parametrize("settings", [{}, {"model_source": ""}, {"model_source": None}])
def test_nothing_is_staged_unless_asked_for(settings: dict[str, Any]) -> None:
    assert staging_request.asked_for(settings) is None


@pytest.mark.parametrize(
    "models",
    [
        {"a1": WHOLE, "a2": WHOLE},
        {"a1": ABSENT, "a2": ABSENT},
        {"a1": WHOLE, "a2": ABSENT},
        {"a1": WHOLE, "a2": Model(error="hangs")},
        {},
    ],
)
def test_what_is_well(models: dict[str, Model]) -> None:
    assert said(models) == []


@pytest.mark.parametrize(
    ("models", "more", "cause", "command"),
    [
        pytest.param(
            {"a2": ABSENT}, {"stages": False}, "a2 (replica_a): there is no /srv/models/tiny: it has not been staged",
            "stage_model.yml --limit a2", id="a run that stages nothing",
        ),
        pytest.param(
            {"a1": WHOLE, "a2": Model(PATH, "absent", free_mib=6000)}, {}, "6000 MiB are free for /srv/models/tiny, the model has "
            "5000 MiB, beside 1024", "prune_models.yml --check", id="no room, as another host knows",
        ),
        pytest.param(
            {"a2": Model(PATH, "absent", free_mib=2047)}, {}, "too few for any model", "prune_models.yml --check", id="a full disk"
        ),
        pytest.param(
            {"a1": Model(PATH, "folder", staged=Staged(GOOD.source, "d1", 5, ("m-2.safetensors", "x")))}, {},
            "a1 (replica_a): /srv/models/tiny/m-2.safetensors and 1 more is missing", "stage_model.yml --limit a1", id="missing",
        ),
        pytest.param({"a1": Model(PATH, "folder")}, {}, "staging did not make it", "", id="an operator's own"),
        pytest.param(
            {"a1": Model(PATH, "folder", staged=Staged("hub:owner/tiny@v1", "d1", 5))}, {},
            "was staged from hub:owner/tiny@v1, not from hub:owner/tiny@main", "", id="another revision",
        ),
        pytest.param(
            {"a1": WHOLE, "a2": Model(PATH, "folder", staged=Staged(GOOD.source, "d2", 5))}, {},
            "a2 (replica_a): /srv/models/tiny was staged with other files than on a1", "--limit a2", id="unlike its peer",
        ),
        pytest.param({}, {"path": "/srv/tiny"}, "write /srv/models/tiny", "", id="elsewhere"),
        pytest.param({}, {"path": "owner/tiny"}, "write /srv/models/tiny", "", id="a name"),
        pytest.param({}, {"settings": {**SETTINGS, "model_source": "tiny"}}, "model_source is 'tiny'", "", id="no source"),
        pytest.param(
            {}, {"settings": {**SETTINGS, "model_source": "http://x/tiny"}}, "which proves nothing", "", id="http alone"
        ),
    ],
)  # fmt: skip
def test_what_is_refused(models: dict[str, Model], more: dict[str, Any], cause: str, command: str) -> None:
    ((found, next_command),) = said(models, **more)
    assert cause in found
    assert command in next_command


def test_checksums_of_the_operators_make_http_good() -> None:
    settings = {**SETTINGS, "model_source": "http://x/tiny", "model_checksums": "/etc/sums"}
    assert said({}, settings) == []
