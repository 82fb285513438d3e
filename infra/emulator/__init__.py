"""MiniStack as `make run` starts it: behind a guard, and with a state that survives a kill and a power cut.

Runs in the emulator's own environment: it imports the standard library, MiniStack, what MiniStack brings along, and
of infra.local what needs no more than that (guard, rootkey). Nothing else of ours may be imported here, so that nothing
of the app is importable in a function.
"""
