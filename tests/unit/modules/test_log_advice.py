"""The module over real files: findings, the reason of an end, and tables that are missing or broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.modules import log_advice

ROOT = Path(__file__).parents[3]
LOG = ROOT / "tests" / "unit" / "fixtures" / "vllm" / "0.32.0" / "dies_at_first_completion.log"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "log_advice.json"
    rows = yaml.safe_load((ROOT / "data" / "log_advice.yml").read_text(encoding="utf-8"))
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        log_advice.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_logs_are_read(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, paths=[f"{LOG.parent}/dies_at_*.log", "/nowhere/*.log"], patterns=str(table))
    assert result["read"] == [str(LOG)]
    assert result["reason"].startswith("RuntimeError: Worker failed with error 'Unsupported CPU attention")
    assert "few_open_files" in [finding["id"] for finding in result["findings"]]
    assert result["changed"] is False


def test_only_the_end_of_a_long_log_is_read(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "long.log"
    log.write_text(LOG.read_text(encoding="utf-8") + "all is well\n" * 100, encoding="utf-8")
    result = run(capsys, paths=[str(log)], patterns=str(table), last_bytes=600)
    assert (result["findings"], result["reason"]) == ([], "all is well")


def test_a_table_that_is_missing_or_broken_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.json"
    assert "is not there" in run(capsys, paths=[str(LOG)], patterns=str(path))["msg"]
    path.write_text('{"patterns": [{"id": "x"}]}', encoding="utf-8")
    assert "log_advice row 'x'" in run(capsys, paths=[str(LOG)], patterns=str(path))["msg"]
