"""The control plane's side of a mount: claims with a target path, which its worker publishes through the bridge here.

Secrets and contexts never come to this machine's users: the worker makes the node's calls (docs/mount.md).
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from moorage.mounts.journal import Entry

ANSWER_SECONDS: Final = 40.0
LONGEST_WAIT: Final = 25.0
"""Seconds the control plane keeps a request waiting at most."""
"""The control plane answers within 30 s, whatever goes on."""
TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
"""In the bridge's state folder; the operator puts it there where the control plane asks for ACL tokens."""
NO_VOLUME: Final = "volume not found"
"""The control plane's word, as Nomad's: with the volume all its claims are gone."""
_BUSY: Final = (408, 425, 429, 502, 503)
_PENDING: Final = (202, 504)


class ApiTrouble(Exception):
    """What was asked for was not done, or not yet."""


class Away(ApiTrouble):
    """No answer, or one that says to come again: whether it was done is not known."""

    def __init__(self, text: str, *, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Pending(ApiTrouble):
    """It is being done; the same request goes on waiting."""


class Missing(ApiTrouble):
    """404."""


class Conflict(ApiTrouble):
    """409: something is in the way that may pass."""


class Refused(ApiTrouble):
    """Any other answer; the text is the control plane's."""


class ControlPlane:
    """One control plane's claims."""

    def __init__(self, url: str, session: aiohttp.ClientSession, token_file: Path | None = None) -> None:
        self._url, self._session, self._token_file = url.rstrip("/"), session, token_file

    @property
    def url(self) -> str:
        return self._url

    async def volume(self, namespace: str, volume: str) -> dict[str, Any]:
        """GET /v1/volume/csi/:id. Raises ApiTrouble, as all of these do."""
        found: dict[str, Any] = await self._ask("GET", _path(namespace, volume))
        return found

    async def claim(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> dict[str, Any]:
        """Take the entry's claim and have it mounted at its target; the same claim taken again is the same claim.

        After `wait` seconds that it is not over is an answer, too: Pending.
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
        """The claim lasts its lease from now on; waits `seconds` for the answer. Conflict: it has run out."""
        path = _path(entry.namespace, entry.volume, f"/claim/{quote(entry.allocation, safe='')}/renew")
        await self._ask("PUT", path, {"LeaseSeconds": entry.lease}, seconds=seconds)

    async def claim_of(self, entry: Entry, *, seconds: float = ANSWER_SECONDS) -> dict[str, Any] | None:
        """The allocation's claim on the volume, also one that is on its way out; None when there is none."""
        try:
            claims = await self._ask("GET", _path(entry.namespace, entry.volume, "/claims"), seconds=seconds)
        except Missing as exc:
            if str(exc) != NO_VOLUME:  # a wrong address answers 404, too, and knows nothing of claims
                raise Refused(f"404: {exc}") from exc
            return None
        return next((one for one in claims if one["AllocationID"] == entry.allocation), None)

    async def release(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> None:
        """Unmount, detach and free: all done, or nothing was there, when this returns; Pending after `wait` seconds."""
        path = _path(entry.namespace, entry.volume, f"/claim/{quote(entry.allocation, safe='')}")
        try:
            await self._ask("DELETE", path, wait=wait)
        except Missing as exc:
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
                status, text, said = answer.status, (await answer.text()).strip(), answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Away(f"{self._url} does not answer: {_words(exc)}") from exc
        if status in _BUSY:
            after = said.get("Retry-After", "")
            raise Away(f"{status}: {text[:500]}", retry_after=min(float(after), 30.0) if after.isdecimal() else 1.0)
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
        """The ACL token is read for each request: a file that was replaced counts at once."""
        try:
            token = self._token_file.read_text().strip() if self._token_file else ""
        except FileNotFoundError:
            token = ""
        except OSError as exc:
            raise Away(f"{self._token_file} cannot be read: {exc.strerror}") from exc
        return {"X-Nomad-Token": token} if token else {}


@asynccontextmanager
async def connected(url: str, token_file: Path | None = None) -> AsyncIterator[ControlPlane]:
    """The control plane at `url`; `token_file` holds an ACL token, if it is there."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield ControlPlane(url, session, token_file)


def live(claim: dict[str, Any] | None) -> bool:
    """Whether the claim counts for its allocation, and is not on its way out."""
    return claim is not None and claim["State"] == "taken"


def _path(namespace: str, volume: str, rest: str = "") -> str:
    return f"/v1/volume/csi/{quote(volume, safe='')}{rest}?namespace={quote(namespace, safe='')}"


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
