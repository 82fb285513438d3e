"""The local system: the same app, stacks and bridge on an emulator of AWS, started by `make run`.

Import what you need from its modules; this file stays empty of code because `make run` imports it before .venv exists.
"""
