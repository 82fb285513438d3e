"""Handlers that a released version gave to the functions of its stages.

`chalice deploy` never changes the handler of a function that exists, so each of these names must work in every version
that such a stage can be upgraded to.
"""

import importlib
from typing import Final

import pytest

from chalicelib import functions

RELEASED: Final = {
    "0.1.0": (
        "app.app",
        "chalicelib.workers.ask_plugin",
        "chalicelib.workers.audit_volumes",
        "chalicelib.workers.bury_operation",
        "chalicelib.workers.run_operation",
        "chalicelib.workers.sweep_operations",
    ),
}


@pytest.mark.parametrize("handler", [handler for handlers in RELEASED.values() for handler in handlers])
def test_a_handler_of_a_released_version_is_still_there(handler: str) -> None:
    module, _, name = handler.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert callable(found)
    if name != "app":
        assert found is getattr(functions, name)


def test_each_function_of_the_newest_release_has_its_handler_here() -> None:
    """A function that is added later gets the handler that its own first version gives it."""
    names = {handler.rpartition(".")[2] for handler in RELEASED["0.1.0"]} - {"app"}
    assert names <= {name for name in vars(functions) if not name.startswith("_")}
