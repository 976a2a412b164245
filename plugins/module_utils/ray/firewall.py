"""Ray's ports, open to the hosts of the replica alone.

Ray listens on every address of a host and has no setting against it. ``python3 -m lockstep.ray.firewall apply`` (at boot
from ``lockstep-filter.service``) loads one nftables table that drops what others send to these ports, and touches no
other rule.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import records
from .ports import RayPorts, filtered, ray_ports

NFT = "/usr/sbin/nft"
RULES = Path("/run/lockstep-filter.nft")


def port_set(ray: RayPorts) -> str:
    """The filtered ports and ranges, as nftables writes them."""
    return ", ".join(str(some[0]) if len(some) == 1 else f"{some[0]}-{some[-1]}" for some in filtered(ray))


def rules(identity: Mapping[str, Any], ray: RayPorts) -> str:
    """The table for a host: what ``nft -f`` loads, whether or not there is one already."""
    peers = "\n".join(
        f"    {'ip6' if ':' in address else 'ip'} saddr {address} accept"
        for address in sorted(identity["peers"].values())
    )
    return f"""\
table inet lockstep {{}}
delete table inet lockstep
table inet lockstep {{
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iif lo accept
    tcp dport != {{ {port_set(ray)} }} accept
{peers}
    ct state established,related accept
    counter drop
  }}
}}
"""


def apply() -> bool:
    """Load the table where it is absent or another one. Returns whether it was loaded."""
    identity = records.read(records.HOST)
    if identity is None:
        raise records.RecordError(f"{records.HOST} does not exist", "ansible-playbook site.yml")
    desired = rules(identity, ray_ports())
    if _loaded() and RULES.is_file() and RULES.read_text(encoding="utf-8") == desired:
        return False
    subprocess.run([NFT, "-f", "-"], input=desired, text=True, check=True, timeout=30)
    RULES.write_text(desired, encoding="utf-8")
    return True


def _loaded() -> bool:
    return subprocess.run([NFT, "list", "table", "inet", "lockstep"], capture_output=True, timeout=30).returncode == 0


def remove() -> bool:
    """Take the table away. Returns whether it was there."""
    RULES.unlink(missing_ok=True)
    return subprocess.run([NFT, "delete", "table", "inet", "lockstep"], capture_output=True, timeout=30).returncode == 0


def main(arguments: list[str]) -> int:
    """``apply`` or ``remove``; prints ``changed`` or ``unchanged``."""
    if arguments not in (["apply"], ["remove"]):
        print("usage: python3 -m lockstep.ray.firewall apply|remove", file=sys.stderr)
        return 2
    try:
        changed = apply() if arguments == ["apply"] else remove()
    except (records.RecordError, subprocess.SubprocessError, OSError) as error:
        print(f"Ray's ports are not filtered: {error}", file=sys.stderr)
        return 1
    print("changed" if changed else "unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
