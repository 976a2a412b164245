"""For how long a replica is out of rotation in a roll, against the sum of its bare steps in the same run.

Two replicas of one host on the testbed, behind the router and under load. Downtime is what the router's own log shows: from the
moment at which the replica is drained to the moment at which it is ready again. The bare steps are the module executions on its
host that began between the two, as Ansible's events time them; what is over is what Ansible adds between them: starting
tasks, including roles, checking their arguments. One roll reloads the module, one reboots.

Uses the testbed that ``LOCKSTEP_TESTBED`` and ``LOCKSTEP_TESTBED_PREFIX`` name, and ends it unless
``LOCKSTEP_KEEP_TESTBED`` is set.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.rolls import Roll, other, roll, serving, testbed_four  # noqa: E402

GOAL = 1.15
POLICIES = ("reload", "reboot")


def figures(rolled: Roll) -> list[dict[str, Any]]:
    """Per replica: seconds out of rotation, of these in its tasks, and their ratio."""
    return [
        {"replica": replica, "downtime_s": round(down, 1), "steps_s": round(bare, 1), "ratio": round(down / bare, 3)}
        for replica, down, bare in rolled.downtimes()
    ]


def main() -> int:
    result: dict[str, Any] = {"benchmark": "downtime", "cpus": os.cpu_count(), "goal_ratio": GOAL, "paths": {}}
    with testbed_four("pair") as lab:
        version = serving(lab)["a1"]
        for policy in POLICIES:
            version = other(version)
            rolled = roll(lab, version, extra={"nvidia_driver_load_policy": policy})
            if rolled.play.rc:
                print(rolled.play.explained())
                return 1
            result["paths"][policy] = figures(rolled)
    result["load"] = round(os.getloadavg()[0], 1)
    result["worst_ratio"] = max(row["ratio"] for rows in result["paths"].values() for row in rows)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
