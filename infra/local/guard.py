"""Let requests of programs on this machine reach a server on the loopback, and refuse those of web pages.

Any web page can make a browser send requests to 127.0.0.1: by a form, an image, a script, or a name of the page's own
that resolves to 127.0.0.1. The browser then names the page's origin, or says that the request crosses sites, or sends
the page's name as Host (Fetch Standard, "HTTP-network-or-cache fetch"; Fetch Metadata, section 2). Programs such as
curl and the SDKs send neither Origin nor Sec-Fetch-Site. Standard library only, since the emulator imports this, too.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

LOCAL_NAME: Final = re.compile(r"(?:localhost|[^:/\[\]]*|\[[0-9A-Fa-f:.]+\])(?::\d+)?", re.ASCII)
NOT_ACROSS_SITES: Final = frozenset({"", "none", "same-origin"})
"""`same-site` is not among them: a page on another port of this machine is of the same site."""


@dataclass(frozen=True)
class Refusal:
    """Status and text of the answer to a request that is refused."""

    status: int
    text: str


def refusal(host: str, origin: str | None, fetch_site: str | None, *, names: Collection[str] = ()) -> Refusal | None:
    """Check a request by its Host, Origin and Sec-Fetch-Site. Return None if it may pass.

    `names` are hosts that are served beside the loopback's own names.
    """
    if host not in names and not is_local(host):
        text = f"this is a local Moorage and answers to loopback names only (127.0.0.1, localhost), not to {host!r}"
        return Refusal(421, text)
    if origin is not None and origin != f"http://{host}":
        return Refusal(403, f"a web page of {origin!r} may not call this server: only its own pages and programs may")
    if (fetch_site or "").strip().lower() not in NOT_ACROSS_SITES:
        return Refusal(403, "a web page of another site may not call this server: only its own pages and programs may")
    return None


def is_local(host: str) -> bool:
    """Return whether a Host header names this machine's loopback, with or without a port."""
    if not LOCAL_NAME.fullmatch(host):
        return False
    name = host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]
    if name.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
