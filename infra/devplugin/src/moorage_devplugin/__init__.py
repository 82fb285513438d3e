"""A CSI plugin that keeps volumes as plain folders below one root."""

from typing import Final

__version__: Final = "0.1.0"
