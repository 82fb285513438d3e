"""The handlers of functions.py, by the module that version 0.1.0 had them in.

`chalice deploy` sets a function's handler when it creates the function, and never again. So the functions of a stage
that 0.1.0 has deployed keep these names.
"""

from chalicelib.functions import ask_plugin, audit_volumes, bury_operation, run_operation, sweep_operations

__all__ = ["ask_plugin", "audit_volumes", "bury_operation", "run_operation", "sweep_operations"]
