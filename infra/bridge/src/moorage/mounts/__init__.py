"""Volumes mounted on this machine without an orchestrator: the journal, the claims behind it, what shows at a path."""
