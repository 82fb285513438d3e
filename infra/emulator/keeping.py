"""The application between door and MiniStack that has the state written: from start to end, and by what passes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra.emulator.door import CALL, refuse

if TYPE_CHECKING:
    from infra.emulator.calls import Call
    from infra.emulator.door import App, Message, Receive, Scope, Send
    from infra.emulator.storage import Storage


@dataclass
class Keeping:
    """An ASGI application that has the state of the one behind it written, and refuses calls while that fails."""

    app: App
    storage: Storage
    _writing: asyncio.Task[None] | None = field(default=None, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on, and note what it may change."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._while_it_lives(send))
            return
        call: Call | None = scope.get(CALL)
        if call is not None and self.storage.trouble:
            await refuse(send, 503, "ServiceUnavailable", self.storage.trouble)
            return
        await self.app(scope, receive, send)
        changed = call.changes() if call is not None else None
        if changed is not None:
            self.storage.touched(*changed)

    def _while_it_lives(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._writing = asyncio.create_task(self.storage.write_until_ended())
            elif message["type"] == "lifespan.shutdown.complete" and self._writing is not None:
                self.storage.end()
                await self._writing
            await send(message)

        return sent
