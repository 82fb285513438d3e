"""Volumes mounted on this machine without an orchestrator: journal, claims, and what is at a path."""
