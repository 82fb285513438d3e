"""The local system: the same app, stacks and bridge on an emulator of AWS, started by `make run`.

This file has no code, because `make run` imports it before .venv exists. Import from its modules.
"""
