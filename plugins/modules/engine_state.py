#!/usr/bin/python
# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: engine_state
short_description: See what the engine supervisor of this head does, and wait until it serves or is drained
description:
  - Reads C(/run/lockstep/engine.json) and the state of the unit C(lockstep-vllm.service).
  - A wait ends early, with the reason from the engine's log, when the engine died while starting, when the supervisor
    gave up or when the unit is gone.
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
options:
  wait_for:
    description: V(serving) waits until the replica says that it is ready, V(drained) until no request runs any more.
    type: str
    choices: [serving, drained]
  deadline:
    description: Seconds that the wait may take.
    type: float
    default: 1800
attributes:
  check_mode:
    support: full
    description: Changes nothing. In check mode it doesn't wait.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Engine serves
  lockstep.vllm.engine_state:
    wait_for: serving
    deadline: 3600
"""

RETURN = r"""
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
phases:
  description: What the supervisor went through meanwhile, in words.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lockstep.vllm.plugins.module_utils import admission, engine_state, records, waiting

UNIT = "lockstep-vllm.service"

Seen = tuple["dict[str, Any] | None", engine_state.Unit]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wait_for": {"type": "str", "choices": ["serving", "drained"]},
            "deadline": {"type": "float", "default": 1800},
        },
        supports_check_mode=True,
    )
    phases: list[str] = []

    def observe() -> Seen:
        _, shown, _ = module.run_command(["systemctl", "show", "--property=ActiveState,MainPID,Result", UNIT])
        try:
            return engine_state.read(), engine_state.parse_unit(shown)
        except records.RecordError as error:
            module.fail_json(msg=str(error))
            raise

    def judge(seen: Seen) -> waiting.Judgement:
        return engine_state.judge(*seen, module.params["wait_for"])

    def progress(seen: Seen, judgement: waiting.Judgement) -> None:
        if judgement.reason and phases[-1:] != [judgement.reason]:
            phases.append(judgement.reason)

    if module.params["wait_for"] is None or module.check_mode:
        engine, unit = observe()
        module.exit_json(changed=False, engine=engine, unit=unit.active, seconds=0.0, phases=phases)
    ended = waiting.poll(observe, judge, deadline=module.params["deadline"], interval=0.5, progress=progress)
    engine, unit = ended.last
    told = {"engine": engine, "unit": unit.active, "seconds": round(ended.seconds, 1), "phases": phases}
    if not ended.ready:
        late = f" (deadline of {module.params['deadline']:.0f} s)" if ended.code == "deadline" else ""
        wanted = "serve" if module.params["wait_for"] == "serving" else "drain"
        refused = unit.result == "exec-condition" and not unit.up
        reason = admission.decide_here("replica").reason if refused else ended.reason
        module.fail_json(msg=f"the engine does not {wanted}{late}: {reason}. Next: journalctl -u {UNIT} -n 200", **told)
    module.exit_json(changed=False, **told)


if __name__ == "__main__":
    main()
