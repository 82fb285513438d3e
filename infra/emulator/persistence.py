"""ASGI middleware between Door and MiniStack that has the state written when a call may have changed it."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra.emulator.door import CALL, refuse
from infra.emulator.storage import UnreadableError

if TYPE_CHECKING:
    from infra.emulator.calls import Call
    from infra.emulator.door import App, Message, Receive, Scope, Send
    from infra.emulator.storage import Storage

logger = logging.getLogger("moorage.emulator")


@dataclass
class PersistenceMiddleware:
    """Has the state of the application behind it written, and refuses calls while that fails."""

    app: App
    storage: Storage
    _writing: asyncio.Task[None] | None = field(default=None, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on, and note which state it may change."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, self._follow_lifespan(send))
            except UnreadableError as exc:  # after any other error, hypercorn would serve without a lifespan
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        call: Call | None = scope.get(CALL)
        if call is None:
            await self.app(scope, receive, send)
        elif self.storage.trouble:
            await refuse(send, 503, "ServiceUnavailable", self.storage.trouble)
        elif call.changes_items:
            await self._answer_when_written(scope, receive, send)
        else:
            await self.app(scope, receive, send)
            changed = call.changes()
            if changed is not None:
                self.storage.mark_changed(*changed)

    async def _answer_when_written(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the answer to a call that changes items until they are on disk."""
        answer: list[Message] = []

        async def hold(message: Message) -> None:
            answer.append(message)

        await self.app(scope, receive, hold)
        await self.storage.wait_until_written()
        if self.storage.trouble:
            await refuse(send, 503, "ServiceUnavailable", self.storage.trouble)
            return
        for message in answer:
            await send(message)

    def _follow_lifespan(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._writing = asyncio.create_task(self.storage.write_until_ended())
                self._writing.add_done_callback(_exit_if_failed)
            elif message["type"] == "lifespan.shutdown.complete" and self._writing is not None:
                self.storage.end()
                await self._writing
                if self.storage.trouble:
                    message = {"type": "lifespan.shutdown.failed", "message": self.storage.trouble}
            await send(message)

        return sent


def _exit_if_failed(writing: asyncio.Task[None]) -> None:
    """End the process when writing has failed for good. The supervisor starts it again, from what is on disk."""
    failure = None if writing.cancelled() else writing.exception()
    if failure is not None:
        logger.critical("the state is not written any more", exc_info=failure)
        os._exit(1)
