"""Register this bridge and its plugins: at the start, at every heartbeat, and at once when health changes.

The messages are in docs/interfaces.md, section 4. While the control plane does not answer, the pauses grow, with
jitter.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from moorage import __version__
from moorage.bridge.relay import PROTOCOL, understands
from moorage.bridge.tls import BridgeTls

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
HEARTBEAT_SECONDS: Final = 30.0
SHORTEST_HEARTBEAT: Final = 1.0
ANSWER_SECONDS: Final = 10.0
FAREWELL_SECONDS: Final = 3.0
LEAST_BETWEEN: Final = 0.2
TOO_FAR_APART: Final = 426
"""Status for a bridge whose protocol the control plane no longer knows."""
log: Final = logging.getLogger(__name__)


@dataclass
class Registration:
    """One bridge's conversation with the control plane."""

    api: str
    node_id: str
    node_name: str
    address: str
    tls: Callable[[], BridgeTls]
    plugins: Callable[[], Sequence[dict[str, Any]]]
    refuse: Callable[[Sequence[str]], None]
    jitter: Callable[[], float] = field(default=random.SystemRandom().random)
    instance_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    registered: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _sequence: int = 0
    _failures: int = 0
    _last_trouble: str = ""

    def changed(self) -> None:
        """Send a heartbeat now, because something changed that the control plane should know."""
        self._changed.set()

    async def run(self) -> None:
        """Register and stay registered until cancelled."""
        async with self._session(ANSWER_SECONDS) as session:
            while True:
                self._changed.clear()
                pause = await self._send(session)
                await asyncio.sleep(LEAST_BETWEEN)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()

    async def farewell(self) -> None:
        """Deregister. A control plane that does not answer will notice that the heartbeats end."""
        self._sequence += 1
        body = json.dumps(
            {"Protocol": PROTOCOL, "NodeID": self.node_id, "InstanceID": self.instance_id, "Sequence": self._sequence}
        ).encode()
        try:
            async with (
                self._session(FAREWELL_SECONDS) as session,
                session.delete(self._url, data=body, headers=self._signed("DELETE", body)) as answer,
            ):
                text = (await answer.text())[:500]
                log.info("deregistered", extra={"status": answer.status, "text": text})
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            log.warning("not deregistered, the control plane is away", extra={"reason": _words(exc)})

    async def _send(self, session: aiohttp.ClientSession) -> float:
        """Send one message, and return the seconds until the next."""
        body = self._body()
        try:
            async with session.put(self._url, data=body, headers=self._signed("PUT", body)) as answer:
                if answer.status == 200:
                    return self._handle_answer(json.loads(await answer.text()))
                return self._handle_trouble(f"{answer.status}: {(await answer.text())[:500].strip()}", answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            return self._handle_trouble(_words(exc), None)
        except ValueError as exc:
            return self._handle_trouble(f"the answer is no JSON object as agreed: {exc}", None)

    def _handle_answer(self, answer: dict[str, Any]) -> float:
        if not isinstance(answer, dict):
            raise ValueError("not an object")  # noqa: TRY004 - what json.loads raises for the other broken answers
        theirs = answer.get("Protocol", PROTOCOL)
        if not understands(str(theirs)):
            text = f"the control plane speaks protocol {theirs}, this bridge {PROTOCOL}: update the older of the two"
            return self._handle_trouble(text, TOO_FAR_APART)
        if self._failures or not self.registered.is_set():
            log.info("registered", extra={"node": self.node_id, "address": self.address})
        self._failures, self._last_trouble = 0, ""
        self.registered.set()
        self.refuse([str(one) for one in answer.get("Refused") or ()])
        for lost in answer.get("Lost") or ():
            # What we or the worker mounted is unmounted without this; what an orchestrator mounted is its to unmount.
            extra = {"volume": f"{lost['Namespace']}/{lost['VolumeID']}", "target": lost["TargetPath"]}
            log.warning("no longer ours", extra=extra | {"allocation": lost["AllocationID"]})
        seconds = answer.get("HeartbeatSeconds", HEARTBEAT_SECONDS)
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise ValueError("HeartbeatSeconds is no number")  # noqa: TRY004 - as above
        return max(SHORTEST_HEARTBEAT, seconds) * (0.8 + 0.2 * self.jitter())

    def _handle_trouble(self, trouble: str, status: int | None) -> float:
        """Log each trouble once, and return the seconds until the next try.

        A 4xx that only a person can put right is asked for again at the longest pause only.
        """
        self._failures += 1
        for_a_person = status is not None and 400 <= status < 500 and status not in (408, 425, 429)
        longest = LONGEST_PAUSE if for_a_person else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
        pause = longest * (0.5 + 0.5 * self.jitter())
        if trouble != self._last_trouble:
            extra = {"reason": trouble, "seconds": round(pause, 1)}
            log.log(logging.ERROR if for_a_person else logging.WARNING, "not registered", extra=extra)
            self._last_trouble = trouble
        return pause

    def _body(self) -> bytes:
        self._sequence += 1
        return json.dumps(
            {
                "Protocol": PROTOCOL,
                "NodeID": self.node_id,
                "NodeName": self.node_name,
                "InstanceID": self.instance_id,
                "Sequence": self._sequence,
                "Address": self.address,
                "BridgeVersion": __version__,
                "CertificatePEM": self.tls().certificate.decode(),
                "Plugins": list(self.plugins()),
            }
        ).encode()

    @property
    def _url(self) -> str:
        return f"{self.api}/v1/bridge/{self.node_id}"

    def _signed(self, method: str, body: bytes) -> dict[str, str]:
        tls = self.tls()
        text = f"{method}\n/v1/bridge/{self.node_id}\n{hashlib.sha256(body).hexdigest()}"
        signature = base64.b64encode(tls.sign(text.encode())).decode()
        return {"X-Moorage-Signature": f"v1 {signature}", "Content-Type": "application/json"}

    def _session(self, seconds: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
        )


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
