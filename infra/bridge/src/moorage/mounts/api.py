"""The control plane's side of a mount: claims with a target path, which its worker publishes through this bridge.

Secrets and contexts never reach the users of this machine, because the worker makes the node's calls (docs/mount.md).
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from moorage.files import read_whole
from moorage.mounts.journal import Entry

ANSWER_SECONDS: Final = 40.0
"""Seconds to wait for an answer. The control plane answers within 30 s."""
LONGEST_WAIT: Final = 25.0
"""Seconds that the control plane may be asked to keep a request waiting (`Prefer: wait`)."""
TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
"""Name of the ACL token's file in the bridge's state folder. The operator puts it there if ACLs are on. No link."""
NO_VOLUME: Final = "volume not found"
"""Body of the 404 for a volume that does not exist, as Nomad's. Its claims are gone with it."""
_BUSY: Final = (408, 425, 429, 502, 503)
_PENDING: Final = (202, 504)


class ApiTrouble(Exception):
    """The control plane did not do what was asked, or not yet."""


class Unavailable(ApiTrouble):
    """The control plane gave no answer, or asked to come again. Whether the request took effect is unknown."""

    def __init__(self, text: str, *, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Pending(ApiTrouble):
    """The operation is running. Repeating the request continues to wait for it."""


class Missing(ApiTrouble):
    """404."""


class Conflict(ApiTrouble):
    """409: something is in the way, which may pass."""


class Refused(ApiTrouble):
    """Any other status. The text is the control plane's."""


class ControlPlane:
    """The claims of one control plane. Every method raises ApiTrouble."""

    def __init__(self, url: str, session: aiohttp.ClientSession, token_file: Path | None = None) -> None:
        self._url, self._session, self._token_file = url.rstrip("/"), session, token_file

    @property
    def url(self) -> str:
        return self._url

    async def volume(self, namespace: str, volume: str) -> dict[str, Any]:
        """Return the volume (GET /v1/volume/csi/:id)."""
        body: dict[str, Any] = await self._ask("GET", _path(namespace, volume))
        return body

    async def claim(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> dict[str, Any]:
        """Take the entry's claim, have it published at its target, and return it. Taking it again is safe.

        Raises Pending when it is not published after `wait` seconds.
        """
        body = {
            "AllocationID": entry.allocation,
            "NodeID": entry.node,
            "Mode": entry.mode,
            "AccessMode": entry.access_mode,
            "AttachmentMode": entry.attachment_mode,
            "Name": f"mount {entry.target}",
            "LeaseSeconds": entry.lease,
            "StagingPath": entry.staging,
            "TargetPath": entry.target,
        }
        taken: dict[str, Any] = await self._ask("PUT", _path(entry.namespace, entry.volume, "/claim"), body, wait=wait)
        return taken

    async def renew(self, entry: Entry, *, seconds: float = ANSWER_SECONDS) -> None:
        """Start the claim's lease anew. Waits `seconds` for the answer. Raises Conflict if the lease has run out."""
        path = _path(entry.namespace, entry.volume, f"/claim/{quote(entry.allocation, safe='')}/renew")
        await self._ask("PUT", path, {"LeaseSeconds": entry.lease}, seconds=seconds)

    async def claim_of(self, entry: Entry, *, seconds: float = ANSWER_SECONDS) -> dict[str, Any] | None:
        """Return the allocation's claim on the volume, including one that is being released, or None."""
        try:
            claims = await self._ask("GET", _path(entry.namespace, entry.volume, "/claims"), seconds=seconds)
        except Missing as exc:
            if str(exc) != NO_VOLUME:  # a wrong address answers 404 as well, and knows nothing of claims
                raise Refused(f"404: {exc}") from exc
            return None
        return next((claim for claim in claims if claim["AllocationID"] == entry.allocation), None)

    async def release(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> None:
        """Have the claim unpublished, detached and freed. Succeeds if there is none.

        Raises Pending when it is not free after `wait` seconds.
        """
        path = _path(entry.namespace, entry.volume, f"/claim/{quote(entry.allocation, safe='')}")
        try:
            await self._ask("DELETE", path, wait=wait)
        except Missing as exc:
            # "No claim" and "no such page" are both 404: only the list of claims proves that there is none.
            if await self.claim_of(entry) is not None:
                raise Refused(f"404: {exc}") from exc

    async def _ask(
        self, method: str, path: str, body: Any = None, *, seconds: float = ANSWER_SECONDS, wait: float | None = None
    ) -> Any:
        headers = self._headers()
        if wait is not None:
            headers["Prefer"] = f"wait={max(1, min(round(wait), LONGEST_WAIT))}"
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=headers, timeout=timeout
            ) as answer:
                status, text, answered = answer.status, (await answer.text()).strip(), answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unavailable(f"{self._url} does not answer: {_words(exc)}") from exc
        if status in _BUSY:
            after = answered.get("Retry-After", "")
            pause = min(float(after), 30.0) if after.isdecimal() else 1.0
            raise Unavailable(f"{status}: {text[:500]}", retry_after=pause)
        if status in _PENDING:
            raise Pending(text[:500])
        if status >= 300:
            raise {404: Missing, 409: Conflict}.get(status, Refused)(text[:2000])
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError as exc:
            raise Refused(f"{method} {path}: the answer is no JSON: is {self._url} a Moorage?") from exc

    def _headers(self) -> dict[str, str]:
        """Return the header with the ACL token, if there is one.

        The file is read for each request, so that a new token counts at once.
        """
        try:
            token = read_whole(self._token_file).decode().strip() if self._token_file else ""
        except FileNotFoundError:
            token = ""
        except OSError as exc:
            raise Unavailable(f"{self._token_file} cannot be read: {exc.strerror}") from exc
        return {"X-Nomad-Token": token} if token else {}


@asynccontextmanager
async def connected(url: str, token_file: Path | None = None) -> AsyncIterator[ControlPlane]:
    """Connect to the control plane at `url` in this block. `token_file` may hold an ACL token."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield ControlPlane(url, session, token_file)


def is_taken(claim: dict[str, Any] | None) -> bool:
    """Return whether there is a claim that its allocation holds. One that is being released does not count."""
    return claim is not None and claim["State"] == "taken"


def _path(namespace: str, volume: str, rest: str = "") -> str:
    return f"/v1/volume/csi/{quote(volume, safe='')}{rest}?namespace={quote(namespace, safe='')}"


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
