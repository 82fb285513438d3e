"""The generated messages of CSI 1.13: not edited, not linted (`make stubs`)."""
