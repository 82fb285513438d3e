"""Moorage on a machine with storage: the bridge in front of CSI plugins, its certificates, and mounts."""

from typing import Final

__version__: Final = "0.1.0"
