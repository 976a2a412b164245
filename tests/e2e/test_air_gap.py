"""Bare hosts become a serving cluster while they can reach nothing but each other, the mirror and the controller.

The testbed's network has no way out anyway, but its hosts have a default route and would try. Here their own kernel drops,
and counts, whatever they send anywhere else, on every protocol; and the wheels come from what `tools/wheelhouse` made,
offered by the controller. What is not cut: the testbed's own /24, on which the driver's repository is mirrored. Begins and
ends with bare hosts.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab

pytestmark = pytest.mark.long

HOSTS = ("a1", "a2")
CUT = """
nft -f - <<'END'
table inet airgap {
    counter outside_tcp { }
    counter outside_udp { }
    counter outside_other { }
    counter metadata { }
    set tried { type ipv4_addr . inet_service; flags dynamic; }
    chain out {
        type filter hook output priority -200; policy accept;
        oifname "lo" accept
        ip daddr NETWORK accept
        ip6 daddr fe80::/10 accept
        ip6 daddr ff00::/8 accept
        ip daddr 224.0.0.0/4 drop
        # Ray's dashboard asks which cloud it is on, whatever its usage statistics are set to; it takes no answer for an answer.
        ip daddr 169.254.169.254 tcp dport 80 counter name metadata reject
        ip protocol tcp update @tried { ip daddr . tcp dport }
        meta l4proto tcp counter name outside_tcp reject
        udp dport 123 drop
        meta l4proto udp counter name outside_udp reject
        counter name outside_other drop
    }
}
END
"""


@pytest.fixture
def bare(lab: Lab) -> Iterator[Lab]:
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)
    yield lab
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)


@contextlib.contextmanager
def offered(folder: Path, address: str) -> Iterator[str]:
    """The folder, offered by the controller as any web server would."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    asked: list[str] = []
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_port}/"
        assert any(name.endswith(".whl") for name in asked), "the hosts took no wheel from here"
    finally:
        server.shutdown()
        server.server_close()


def wheelhouse(lab: Lab, folder: Path) -> None:
    """Made by the tool, with the wheels that the testbed has fetched already in the place of an index."""
    facts = lab.facts()
    own = [f"vllm==0.32.0+cpu --hash=sha256:{facts['vllm_sha256']}",
           f"lockstep-testbed-platform==1.0 --hash=sha256:{facts['lockstep_testbed_platform_sha256']}"]  # fmt: skip
    subprocess.run(
        [sys.executable, ROOT / "tools/wheelhouse", folder, "--lock", "cpu", "--also", *own],
        env={**os.environ, "PIP_FIND_LINKS": str(ROOT / "testbed/.cache/mirror/wheels"), "PIP_NO_INDEX": "1"},
        check=True, timeout=900,
    )  # fmt: skip


def outside(lab: Lab, host: str) -> dict[str, int]:
    """Packets that the host tried to send anywhere else, by protocol."""
    shown = lab.on(host, "nft list counters table inet airgap")
    return {name: int(count) for name, count in re.findall(r"counter outside_(\w+) \{\s+packets (\d+)", shown)}


def test_bare_hosts_serve_with_the_network_cut(bare: Lab, tmp_path: Path) -> None:
    network = bare.address("a1").rpartition(".")[0]
    wheelhouse(bare, tmp_path / "house")
    for host in HOSTS:
        bare.on(host, CUT.replace("NETWORK", f"{network}.0/24"))
        assert bare.on(host, "curl -s -m 3 http://192.0.2.1/ || echo cut").endswith("cut")
        before = outside(bare, host)
        assert before["tcp"] >= 1, "the cut counts"
        bare.on(host, "nft reset counters table inet airgap >/dev/null; nft flush set inet airgap tried")
    with offered(tmp_path / "house", f"{network}.1") as address:
        overlay = {"all": {"hosts": {host: {"serving_runtime_wheelhouse": address} for host in HOSTS}}}
        play = bare.play(overlay=json.dumps(overlay))
    assert play.rc == 0, play.explained()
    tried = {host: outside(bare, host) for host in HOSTS}
    print(f"packets sent outside while it was brought up: {tried}")
    where = {host: bare.on(host, "nft list set inet airgap tried") for host in HOSTS}
    assert all(counted["tcp"] == 0 for counted in tried.values()), where
    answer = bare.status()
    assert [replica["serving"] for replica in answer["replicas"]] == [True], answer
    again = bare.play(overlay=json.dumps(overlay))
    assert again.rc == 0, again.explained()
    assert again.changed() == {}
