"""engine.json and the command line that it becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config as engine_config
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.config import ConfigError
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.layouts import Layout

LEAST: dict[str, Any] = {
    "model": "/srv/m",
    "served_model_name": "tiny",
    "layouts": [{"tensor_parallel_size": 2}],
    "proof": {"prompt": "The cluster says:"},
}


def test_the_least_configuration() -> None:
    config = engine_config.parse(LEAST)
    assert config.layouts == (Layout("tp2pp1", 2, 1),)
    assert config.layouts[0].gpus == 2
    assert config.ladder == ("none", "piecewise", "full")
    assert (config.heartbeat.wedged, config.restarts.limit, config.deadlines.wait) == (20, 6, 1800)


def test_everything() -> None:
    config = engine_config.parse(
        {
            **LEAST,
            "layouts": [
                {"name": "large", "tensor_parallel_size": 2},
                {"name": "small", "tensor_parallel_size": 1, "args": {"max-model-len": 64}},
            ],
            "heartbeat": {"period": 2},
            "restarts": {"limit": 3},
            "policy": {"patience": 5, "move_up": "window", "window": "01:00-02:00"},
        }
    )
    assert config.layouts[1].arguments == {"max_model_len": 64}
    assert config.heartbeat.period == 2
    assert config.restarts.limit == 3
    assert config.policy.window == Window.parse("01:00-02:00")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": ...}, "model"),
        ({"proof": {}}, "prompt"),
        ({"layouts": []}, "at least one layout"),
        ({"layouts": [{"tensor_parallel_size": 0}]}, "at least 1"),
        ({"layouts": [{"tensor_parallel_size": 1}, {"tensor_parallel_size": 1}]}, "two layouts have one name"),
        ({"ladder": []}, "vllm_server_ladder"),
        ({"ladder": ["full", "none"]}, "in this order"),
        ({"ladder": ["eager"]}, "none, piecewise, full"),
        ({"args": {"enforce-eager": True}}, "use vllm_server_ladder: [none] instead"),
        ({"args": {"--api-key": "x"}}, "use vllm_server_api_key instead"),
        ({"layouts": [{"tensor_parallel_size": 1, "args": {"port": 1}}]}, "of layout tp1pp1 sets port"),
        ({"args": {"data-parallel-size": 2}}, "add to vllm_server_args: {data-parallel-backend: ray}"),
        ({"args": {"data_parallel_size": 2, "data-parallel-backend": "mp"}}, "and data-parallel-backend mp"),
        ({"args": {"data-parallel-size": "some"}}, "some"),
        ({"args": {"data-parallel-size": 0}}, "at least 1"),
        ({"args": {"dp": 2}}, "use data-parallel-size instead"),
        ({"args": {"compilation-config": {"cudagraph_mode": "SOME"}}}, "vllm_server_args sets cudagraph_mode SOME"),
        ({"args": {"compilation-config.cudagraph_mode": "none"}}, "use vllm_server_ladder: [none] instead"),
        ({"args": {"cc": "some"}}, "write a mapping, {cudagraph_mode: …}"),
        (
            {
                "layouts": [{"tensor_parallel_size": 1, "args": {"cc": '{"cudagraph_mode": "full"}'}}],
                "ladder": ["none", "piecewise"],
            },
            "use [none, piecewise, full]",
        ),
        ({"args": {"headless": True}}, "leave it out: Lockstep runs one `vllm serve` per replica"),
        ({"args": ["a"]}, "engine.json"),
        ({"heartbeat": {"period": 30}}, "0 < period < stale < wedged"),
        ({"heartbeat": {"beat": 1}}, "beat"),
        ({"policy": {"move_up": "never"}}, "at_once, window or command"),
        ({"policy": {"move_up": "window"}}, "vllm_server_layout_window is needed"),
        ({"policy": {"window": "midnight"}}, "HH:MM-HH:MM"),
        ({"deadlines": {"wait": "soon"}}, "soon"),
    ],
)
def test_what_cannot_be_run_is_reported(change: dict[str, Any], expected: str) -> None:
    record = {name: value for name, value in {**LEAST, **change}.items() if value is not ...}
    with pytest.raises(ConfigError) as refusal:
        engine_config.parse(record)
    assert expected in str(refusal.value)


def test_everything_wrong_is_found_at_once() -> None:
    wrong = {
        "args": {"port": 1, "data-parallel-size": 2},
        "layouts": [{"tensor_parallel_size": 8, "args": {"tensor-parallel-size": 4}}],
        "ladder": ["eager"],
        "heartbeat": {"period": 30},
        "policy": {"move_up": "window"},
        "restarts": {"limit": "few"},
    }
    config, problems = engine_config.examine({**LEAST, **wrong})
    assert config is not None
    assert config.layouts[0].gpus == 16
    for part in (
        "ladder",
        "heartbeat",
        "layout_window",
        "few",
        "sets port",
        "layout tp8pp1dp2 sets tensor-parallel-size",
        "ray",
    ):
        assert len([line for line in problems if part in line]) == 1, (part, problems)
    with pytest.raises(ConfigError, match="vllm_server_ladder"):
        engine_config.parse({**LEAST, **wrong})


def test_data_parallel_engines_are_counted_per_layout() -> None:
    config = engine_config.parse(
        {
            **LEAST,
            "layouts": [
                {"tensor_parallel_size": 8},
                {"name": "one", "tensor_parallel_size": 8, "args": {"data-parallel-size": 1}},
            ],
            "args": {"data-parallel-size": 2, "data-parallel-backend": "ray"},
        }
    )
    assert [(layout.name, layout.gpus, layout.sizes) for layout in config.layouts] == [
        ("tp8pp1dp2", 16, "TP 8 × PP 1 × DP 2"),
        ("one", 8, "TP 8 × PP 1"),
    ]


def test_the_command_of_a_rung() -> None:
    config = engine_config.parse({**LEAST, "args": {"compilation-config": {"level": 3}, "dtype": "auto"}})
    layout = Layout("small", 1, 1, {"dtype": "bfloat16"})
    line = engine_config.command("/v/vllm", config, layout, "piecewise", "10.0.0.11")
    assert line[:3] == ["/v/vllm", "serve", "/srv/m"]
    given = dict(zip(line[3::2], line[4::2], strict=True))
    assert json.loads(given["--compilation-config"]) == {"level": 3, "cudagraph_mode": "PIECEWISE"}
    assert (given["--dtype"], given["--tensor-parallel-size"], given["--host"]) == ("bfloat16", "1", "10.0.0.11")
    assert given["--distributed-executor-backend"] == "ray"
    assert given["--shutdown-timeout"] == "60"


@pytest.mark.parametrize(
    "given",
    [
        {"compilation-config": {"cudagraph_mode": "FULL_DECODE_ONLY", "level": 3}},
        {"compilation_config": '{"cudagraph_mode": "full_decode_only", "level": 3}'},
        {"-cc.cudagraph_mode": "full_decode_only", "--compilation-config.level": 3},
    ],
)
def test_an_operator_s_own_graphs_are_never_overwritten(given: dict[str, Any]) -> None:
    """Case ladder-decode-only: vllm-project/vllm#40969."""
    config = engine_config.parse({**LEAST, "args": given})
    (layout,) = config.layouts
    modes = {}
    for rung in config.rungs(layout):
        line = engine_config.command("/v/vllm", config, layout, rung, "10.0.0.11")
        compilation = json.loads(line[line.index("--compilation-config") + 1])
        assert compilation["level"] == 3
        modes[rung] = "eager" if "--enforce-eager" in line else compilation["cudagraph_mode"]
    assert modes == {"none": "eager", "piecewise": "PIECEWISE", "full": "FULL_DECODE_ONLY"}


def test_a_layout_s_graphs_go_before_the_replica_s() -> None:
    layouts = [{"name": "one", "tensor_parallel_size": 1, "args": {"cc": {"cudagraph_mode": "PIECEWISE"}}}]
    config = engine_config.parse({**LEAST, "layouts": layouts, "args": {"cc": {"cudagraph_mode": "FULL"}}})
    assert config.rungs(config.layouts[0]) == ("none", "piecewise")
    assert engine_config.parse({**LEAST, "args": {"cc": None}}).rungs(config.layouts[0]) == ("none", "piecewise")


def test_the_file_check_that_the_role_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(LEAST), encoding="utf-8")
    bad.write_text(json.dumps({**LEAST, "ladder": []}), encoding="utf-8")
    assert engine_config.main([str(good)]) == 0
    assert engine_config.main([str(bad)]) == 1
    assert "vllm_server_ladder" in capsys.readouterr().err
