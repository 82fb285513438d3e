"""Recorded exchanges of a real Nomad, replayed against this control plane."""
