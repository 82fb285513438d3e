"""Releasing a claim: off the node where the worker mounted it, off the machine by the controller, and free.

Races with: a claim of the same node, which waits for the turn and is then published anew; a delete of the volume,
refused as long as the claim counts. After a crash: every call succeeds for what is not published any more.
"""

from typing import Final

from chalicelib.operations.context import Definition
from chalicelib.operations.release import STEPS

DEFINITION: Final = Definition(steps=STEPS)
