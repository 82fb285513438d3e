"""Moorage on a machine with storage: the bridge before CSI plugins, and the certificates it works with."""

from typing import Final

__version__: Final = "0.1.0"
