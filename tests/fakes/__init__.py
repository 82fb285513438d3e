"""Fakes at the two edges: the provider and the clock."""
