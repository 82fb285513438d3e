"""What released versions wrote: their rows and their bridges' messages, which every later version must get on with.

docs/decisions/018-a-baseline-to-upgrade-from.md says what a baseline is, and how a row is changed.
"""
