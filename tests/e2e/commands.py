"""Which command blocks of the pages run on the testbed, in which order, and what takes the place of their placeholders.

A block is run as typed; a placeholder is what every operator replaces, and nothing else is replaced. The unit test
tests/unit/test_commands_in_docs.py holds this table against the pages, tests/e2e/test_commands.py runs the blocks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

NAME = "e2e-commands"
"""The inventory's name, which is ``mine`` in the pages."""
FIRST = "README.md"
CLUSTER = (
    FIRST,  # makes the inventory, brings the cluster up and rolls its driver; the others go on from there
    "docs/operations/operator-guide.md",
    "docs/how-to/driver-source.md",
    "docs/how-to/add-and-remove.md",
    "docs/how-to/upgrade-driver.md",
    "docs/operations/serving.md",
    "docs/reference/status.md",
    "docs/reference/journal.md",
)
"""Pages whose blocks run on one cluster, in this order."""
DEMO = "make demo"
"""A block with this in it makes a testbed of its own and removes it."""


@dataclasses.dataclass(frozen=True)
class Placeholder:
    """What is typed for what.

    Attributes:
        typed: as it stands in the pages.
        means: whose value it is: the key of the values given to :func:`script`, or the value itself where it is none.
        after: the words that stand before it, where it is a placeholder there alone.
    """

    typed: str
    means: str
    after: str = ""


PLACEHOLDERS = (
    Placeholder("mine", NAME, "inventories/"),
    Placeholder("mine", NAME, "tools/new-inventory "),
    Placeholder("10.20.0.11", "address of a1"),
    Placeholder("10.20.0.12", "address of a2"),
    Placeholder("8", "1", "--gpus "),
    Placeholder("deploy", "root", "--user "),
    Placeholder("/srv/models/llama-3.1-405b-instruct", "/srv/models/tiny"),
    # Another driver than the inventory's: on the testbed that is this one, as its hosts are brought up with an older one.
    Placeholder("595.58.03", "580.95.05", "nvidia_driver_version="),
)
EDITED = "tools/new-inventory"
"""After this command an operator edits the inventory: how hosts are reached, which repository, which model."""


def script(text: str, values: Mapping[str, str], edit: str = "true") -> str:
    """A block as it is run.

    Args:
        values: what placeholders stand for on this testbed.
        edit: the command that does what an operator does in an editor.
    """
    for one in PLACEHOLDERS:
        pattern = rf"(?<={re.escape(one.after)}){re.escape(one.typed)}(?![\w.])"
        text = re.sub(pattern, lambda _match, means=one.means: values.get(means, means), text)
    lines = text.replace("\\\n", " ").splitlines()
    return "\n".join(f"{line}\n{edit}" if line.startswith(EDITED) else line for line in lines) + "\n"
