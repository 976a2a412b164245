#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_bake
short_description: Watch how a replica serves after a change, against how it served before
description:
  - V(recorded) keeps on the host how the replica serves now, to be called before it leaves service. While a change of
    driver or settings is under way, or where it does not serve, what was kept before stays.
  - V(watched) samples the replica for a stated time and fails as soon as it is clearly worse, with the figures. It compares
    the errors and latencies of vLLM's own C(/metrics); where there are too few requests, completions of its own.
  - An engine that is not ready, is restarted or fails a completion at any sample has failed.
  - The engine is the one that the host is configured to run (C(/etc/lockstep/engine.json)), sampled every five seconds.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  state:
    description: What to do.
    type: str
    choices: [recorded, watched]
    required: true
  seconds:
    description: How long to watch.
    type: float
    default: 60
  latency_factor:
    description: How many times longer tokens may take than before.
    type: float
    default: 2
  error_share:
    description: By how much the share of requests that end badly may grow.
    type: float
    default: 0.02
  requests:
    description: How many requests it takes to compare, before and now.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Samples in check mode as well, and keeps nothing.
"""

EXAMPLES = r"""
- name: Compare the replica with its baseline
  lockstep.vllm.vllm_bake:
    state: watched
    seconds: 600
"""

RETURN = r"""
bake:
  description: What was seen.
  returned: with O(state=watched)
  type: dict
  contains:
    seen:
      description: Requests, errors and latencies now and before.
      type: str
    causes:
      description: Why it is worse than before; empty where it is not.
      type: list
      elements: str
    seconds:
      description: How long it was watched.
      type: float
    before_at:
      description: When it was recorded how it served before; null where it was not.
      type: str
recorded_at:
  description: When what is kept was recorded; null where nothing is.
  returned: with O(state=recorded)
  type: str
lockstep_event:
  description: What was seen, for the journal.
  returned: with O(state=watched)
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.core import polling, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.vllm_metrics import Counters
from ansible_collections.lockstep.vllm.plugins.module_utils.host import previous_settings
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import bake

COMPLETIONS_BEFORE = 3
INTERVAL = 5.0  # seconds between two samples
# A passing state does not end a bake: it is bad for this long, or for a quarter of the time.
CLEAR_AFTER = 30.0
_NEXT = "journalctl -u lockstep-vllm -n 200"


def record(module: AnsibleModule, samples: list[bake.Sample], known: bake.Before | None) -> dict[str, Any]:
    """Keep how it serves now, where that is what was before the change."""
    last = samples[-1]
    if bake.may_be_recorded(records.read(records.DRIVER), bool(previous_settings.difference()), last):
        seconds = tuple(sample.seconds for sample in samples if sample.seconds is not None)
        known = bake.Before(last.engine, last.figures or Counters(), seconds, records.now())
        if not module.check_mode:
            bake.keep(known)
        return {"changed": True, "recorded_at": known.at}
    return {"changed": False, "recorded_at": known.at if known else None}


def watch(module: AnsibleModule, target: configured.Target, known: bake.Before | None) -> dict[str, Any]:
    """Sample until the time is over or it is clearly worse."""
    params = module.params
    allowed = bake.Allowed(params["latency_factor"], params["error_share"], params["requests"])
    samples: list[bake.Sample] = []

    def observe() -> bake.Verdict:
        samples.append(bake.sample_replica(target))
        return bake.evaluate(known, samples, allowed)

    def evaluate(verdict: bake.Verdict) -> polling.Evaluation:
        return polling.Evaluation("hopeless", verdict.causes[0]) if verdict.causes else polling.Evaluation("wait")

    watched = polling.poll(
        observe,
        evaluate,
        deadline=params["seconds"],
        interval=INTERVAL,
        hopeless_for=min(CLEAR_AFTER, params["seconds"] / 4),
    )
    verdict = watched.last
    return {
        "seen": verdict.seen,
        "causes": list(verdict.causes),
        "seconds": round(watched.seconds, 1),
        "before_at": known.at if known else None,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "watched"], "required": True},
            "seconds": {"type": "float", "default": 60},
            "latency_factor": {"type": "float", "default": 2},
            "error_share": {"type": "float", "default": 0.02},
            "requests": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params

    try:
        target = configured.target()
        known = bake.Before.from_record(records.read(bake.BEFORE))
        if params["state"] == "recorded":
            module.exit_json(
                **record(module, [bake.sample_replica(target) for dummy in range(COMPLETIONS_BEFORE)], known)
            )
        seen = watch(module, target, known)
    except records.RecordError as error:
        module.fail_json(**Stop.of(error, f"mv {bake.BEFORE} {bake.BEFORE}.damaged").as_result())
    except (ValueError, OSError) as error:
        module.fail_json(**Stop.of(error, _NEXT).as_result())
    summary = f"baked {seen['seconds']:.0f} s of {params['seconds']:g}: {seen['seen']}"
    event = {"event": "note", "text": summary}
    if seen["causes"]:
        stop = Stop(f"serves worse than before: {'; '.join(seen['causes'])} ({summary})", _NEXT)
        module.fail_json(**stop.as_result(), bake=seen, lockstep_event=event)
    module.exit_json(changed=False, bake=seen, lockstep_event=event)


if __name__ == "__main__":
    main()
