"""What is closed to who can reach the network, where a setting closes it; tests/e2e/test_outsider.py tries hosts that serve."""

from __future__ import annotations

import configparser
import re

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config as engine_config
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings

from .conftest import ROOT


def engine(**given: object) -> engine_config.Config:
    """The engine that a host runs by these variables, through the role's own template and the supervisor's parser."""
    loader = DataLoader()
    asked = {"vllm_server_model": "/srv/m", **given}
    mine = settings.resolve(
        Templar(loader=loader), asked, settings.defaults(loader), settings.public_variables("vllm_server")
    )
    return engine_config.parse(settings.engine_record(Templar(loader=loader), loader, mine))


@pytest.mark.parametrize(
    ("given", "domain"),
    [({}, "none.invalid"), ({"vllm_server_media_domains": ["images.example.org"]}, "images.example.org")],
)
def test_clients_media_are_fetched_from_nowhere_that_is_not_named(given: dict[str, object], domain: str) -> None:
    """By ``image_url`` the head would ask loopback and a cloud's metadata for whoever sends it; an empty list is any to vLLM."""
    made = engine(**given)
    (layout,) = made.layouts
    line = engine_config.command("vllm", made, layout, made.ladder[0], "10.0.0.1")
    assert line[line.index("--allowed-media-domains") + 1] == domain
    assert made.environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_a_controller_knows_its_hosts_by_their_keys_and_notices_one_that_is_gone() -> None:
    """Somebody in between would be root's controller; ssh without keep-alives waits for ever."""
    config = configparser.ConfigParser()
    config.read(ROOT / "ansible.cfg")
    assert config["defaults"].getboolean("host_key_checking") is True
    asked = dict(re.findall(r"-o (ServerAlive\w+)=(\d+)", config["ssh_connection"]["ssh_args"]))
    assert int(asked["ServerAliveInterval"]) * int(asked["ServerAliveCountMax"]) == 15


def test_haproxy_s_metrics_are_nobody_s_unless_somebody_is_named() -> None:
    role = ROOT / "roles/vllm_haproxy"
    assert yaml.safe_load((role / "defaults/main.yml").read_text())["vllm_haproxy_metrics_clients"] == []
    template = (role / "templates/haproxy.cfg.j2").read_text()
    frontend = template.partition("{% if vllm_haproxy_metrics_clients %}")[2].partition("{% endif %}")[0]
    assert "connection reject unless { src {{ vllm_haproxy_metrics_clients" in frontend
    assert template.count("\nfrontend metrics") == frontend.count("\nfrontend metrics") == 1


def test_keepalived_hears_the_other_routers_alone() -> None:
    lines = [
        line.strip() for line in (ROOT / "roles/vllm_haproxy/templates/keepalived.conf.j2").read_text().splitlines()
    ]
    assert "vrrp_check_unicast_src" in lines
    assert [line for line in lines if line.startswith("unicast_peer")]
