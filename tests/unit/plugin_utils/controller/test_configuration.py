"""A run of the installed collection without its configuration says what it lacks."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import configuration, settings

ALL = tuple(configuration.CALLBACKS)


@pytest.mark.parametrize(
    ("playbook", "enabled", "said"),
    [
        ("lockstep.vllm.site", ALL, ()),
        ("lockstep.vllm.site", (*ALL, "ansible.posix.profile_tasks"), ()),
        ("lockstep.vllm.site", (), ("no journal", "ctrl-C", "Next: cp ")),
        ("lockstep.vllm.site", ALL[:1], ("ctrl-C",)),
        ("site.yml", (), ()),
        ("", (), ()),
    ],
)
def test_what_is_lacking(playbook: str, enabled: tuple[str, ...], said: tuple[str, ...]) -> None:
    found = "".join(configuration.lacking(playbook, enabled))
    assert all(each in found for each in said)
    assert bool(found) is bool(said)


def test_configuration_for_the_collection_is_the_checkouts() -> None:
    def read(path: Path) -> dict[str, dict[str, str]]:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(path.read_text())
        return {name: dict(section) for name, section in parser.items()}

    mine, theirs = read(settings.ROOT / "ansible.cfg"), read(settings.ROOT / configuration.EXAMPLE)
    assert mine["defaults"].pop("collections_path")
    assert theirs == mine
    assert set(configuration.CALLBACKS) == {name.strip() for name in theirs["defaults"]["callbacks_enabled"].split(",")}
