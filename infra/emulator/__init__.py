"""MiniStack as `make run` starts it: behind a check of signatures, with a state that survives a kill and a power cut.

It runs in the emulator's own environment. It may import the standard library, MiniStack, MiniStack's own dependencies,
and those modules of infra.local that need no more (guard, rootkey). Nothing else of ours may be imported here, since
functions run in this environment and must not find the app in it.
"""
