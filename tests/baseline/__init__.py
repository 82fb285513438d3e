"""The rows of released versions and their bridges' messages, which every later version must read.

docs/decisions/018-a-baseline-to-upgrade-from.md says what a baseline is, and how a row is changed.
"""
