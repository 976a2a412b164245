#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: engine_state
short_description: Read what the engine supervisor of this head does, or have it serve or drain and wait until it does
description:
  - Reads C(/run/lockstep/engine.json) and the state of the unit C(lockstep-vllm.service); never starts or stops the unit.
  - A wait ends early, with the reason from the engine's log, when the engine died while starting, when the supervisor
    gave up or when the unit is gone.
  - Known lines of the engine's log (errors and warnings) become warnings, and so do rungs that do not hold once it serves.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  state:
    description:
      - V(serving) withdraws a request to drain and waits until the replica is ready.
      - V(drained) makes it not ready, and waits until no request runs any more.
      - Without it the module only reports.
    type: str
    choices: [serving, drained]
  reason:
    description: Why it is drained; its readiness answer repeats it.
    type: str
    default: asked to drain
  deadline:
    description: Seconds that the wait may take.
    type: float
    default: 1800
  failures_before:
    description: Engine failures in a row that do not end the wait; by default those that it had when the wait began.
    type: int
attributes:
  check_mode:
    support: full
    description: Returns whether it would leave the supervisor a request; leaves none and does not wait.
"""

EXAMPLES = r"""
- name: Wait until the engine serves
  lockstep.vllm.engine_state:
    state: serving
    deadline: 3600
"""

RETURN = r"""
code:
  description: V(ready), V(deadline), or V(hopeless) when waiting cannot help; V(sampled) where nothing was waited for.
  returned: always
  type: str
reason:
  description: Why it is not in the desired state; empty when it is.
  returned: always
  type: str
failures_before:
  description: Engine failures in a row that did not end the wait.
  returned: always
  type: int
engine:
  description: The supervisor's state record, see the architecture page; null where there is none.
  returned: always
  type: dict
unit:
  description: ActiveState of lockstep-vllm.service.
  returned: always
  type: str
seconds:
  description: How long it waited.
  returned: always
  type: float
evidence:
  description: Paths on the host of what the supervisor saved at the engine's last failure, and of the engine's log.
  returned: on failure
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition
from ansible_collections.lockstep.vllm.plugins.module_utils.core import polling, records, systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Target

UNIT = "lockstep-vllm.service"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": [target.value for target in Target]},
            "reason": {"type": "str", "default": "asked to drain"},
            "deadline": {"type": "float", "default": 1800},
            "failures_before": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    target = None if params["state"] is None else Target(params["state"])

    def sample() -> tuple[EngineState | None, engine_state.Unit]:
        try:
            shown = systemd.show([UNIT], ("ActiveState", "MainPID", "Result"))
            return engine_state.read(), engine_state.parse_unit(shown[UNIT])
        except (records.RecordError, systemd.SystemctlError) as error:
            module.fail_json(**Stop.of(error, f"systemctl restart {UNIT}").as_result())
            raise

    engine, unit = sample()
    failures_before = params["failures_before"]
    if failures_before is None:
        failures_before = engine.failures if engine is not None and engine.pid == unit.pid else 0
    changed = target is not None and unit.up and engine_state.request_differs(target)
    result: dict[str, Any] = {"changed": changed, "failures_before": failures_before}
    if target is None or module.check_mode:
        module.exit_json(**result, code="sampled", reason="", engine=as_json(engine), unit=unit.active, seconds=0.0)
        return
    if changed:
        engine_state.request(target, params["reason"])
    ended = polling.poll(
        sample,
        lambda seen: engine_state.evaluate(*seen, target, failures_before),
        deadline=params["deadline"],
        interval=1.0,
    )
    engine, unit = ended.last
    refused = unit.result == "exec-condition" and not unit.up
    reason, following = ended.reason, "journalctl -u lockstep-vllm -n 200"
    if refused and not ended.ready:
        decision = condition.decide_here("replica")
        reason, following = decision.cause, decision.next or following
    result |= {"code": ended.code, "reason": reason, "engine": as_json(engine)}
    result |= {"unit": unit.active, "seconds": round(ended.seconds, 1)}
    if not ended.ready:
        log = [str(engine_state.LOG)] if engine_state.LOG.exists() and not refused else []
        result["evidence"] = [*(engine.evidence if engine else ()), *log]
        late = f" (deadline of {params['deadline']:.0f} s)" if ended.code == "deadline" else ""
        stop = Stop(f"the engine is not {target}{late}: {reason}", following)
        _warn_of_log(module, engine)
        module.fail_json(**stop.as_result(), **result)
    for rung, why in engine_state.failed(engine.ladder if engine else {}).items():
        cause = f"rung {rung} does not hold, rung {engine.rung if engine else None} serves: {why}"
        module.warn(str(Stop(cause, "ansible-playbook playbooks/diagnose.yml")))
    _warn_of_log(module, engine)
    module.exit_json(**result)


def _warn_of_log(module: AnsibleModule, engine: EngineState | None) -> None:
    for text in engine_state.advice(as_json(engine) or {}):
        module.warn(f"vLLM's log: {text}")


if __name__ == "__main__":
    main()
