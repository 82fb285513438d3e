"""Keep the emulator's state on disk: items of tables in SQLite, each other service's state in a file.

MiniStack writes its state only when it ends in order. Here a call that changes items is answered when its change is on
disk, as DynamoDB does. Calls that wait at the same moment share one fsync. Other services' states are written twice a
second. A write costs what changed, not what there is.

MiniStack is patched where it stores and removes items, inside the event loop that serves its requests. A transaction is
one request, and changes are taken between two requests, so a transaction is written as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import ministack.app
from ministack.core import persistence
from ministack.services import dynamodb

logger = logging.getLogger("moorage.emulator")

WRITE_EVERY: Final = 0.5
"""Seconds between two writes while no call waits for one."""
NOT_KEPT: Final = frozenset({"cloudwatch_logs", "cloudtrail"})
"""Services whose state changes with every call and is of no use after a restart. Logs go to a file (logs.py)."""
WRITTEN_LAST: Final = "ssm"
"""The record of what was deployed is a parameter, which may be on disk only when all that it names is."""
BESIDE_TABLES: Final = (
    "tags", "ttl_settings", "pitr_settings", "kinesis_destinations", "contributor_insights", "backups",
    "resource_policies", "exports", "imports",
)  # fmt: skip
"""The rest of DynamoDB's state, by MiniStack's names."""
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS items (table_id, pk, sk, item, PRIMARY KEY (table_id, pk, sk)) WITHOUT ROWID"
)
LONGEST_JOURNAL: Final = 16_000_000
"""Bytes to which SQLite truncates its write-ahead log after a checkpoint."""
PUT: Final = "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)"
DELETE: Final = "DELETE FROM items WHERE table_id = ? AND pk = ? AND sk = ?"

Place = tuple[str, str, str]
"""Table ID, partition key, sort key."""


class UnreadableError(Exception):
    """The state on disk cannot be read."""


class Items:
    """The items of all tables, in SQLite."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        """MiniStack's thread for the time to live removes items, too. Memory and `_changed` change together."""
        self._changed: dict[Place, str | None] = {}
        """Changes since the last write: items as JSON, None for those that were removed."""
        self._writing: dict[Place, str | None] = {}
        self._recount = dynamodb._items_replaced
        self._writer = self._connection()
        self._writer.execute(SCHEMA)

    def patch(self) -> None:
        """Patch MiniStack where it stores and removes items, and where it loads and returns its state."""
        stored, removed, loaded = dynamodb._set_item, dynamodb._remove_item, dynamodb.load_persisted_state

        def set_item(table: Any, pk: str, sk: str, item: Any) -> Any:
            as_json = json.dumps(item)
            with self._lock:
                self._changed[table["TableId"], pk, sk] = as_json
                return stored(table, pk, sk, item)

        def remove_item(table: Any, pk: str, sk: str) -> Any:
            with self._lock:
                item = removed(table, pk, sk)
                if item is not None:
                    self._changed[table["TableId"], pk, sk] = None
                return item

        def items_replaced(table: Any) -> None:
            self._note_all(table)
            self._recount(table)

        def load(data: Any) -> Any:
            result = loaded(data)
            self._fill()
            return result

        dynamodb._set_item, dynamodb._remove_item = set_item, remove_item
        dynamodb._items_replaced, dynamodb.load_persisted_state = items_replaced, load
        dynamodb.get_state = _state_without_items

    def take(self) -> bool:
        """Set the changes apart for `write`, and return whether there are any. Call it between two requests."""
        with self._lock:
            # `_writing` still holds what the last write could not write. What changed since then is newer.
            self._writing, self._changed = self._writing | self._changed, {}
            return bool(self._writing)

    def write(self) -> None:
        """Write what was taken in one transaction, durably."""
        with self._writer:
            self._writer.executemany(PUT, ((*place, item) for place, item in self._writing.items() if item is not None))
            self._writer.executemany(DELETE, (place for place, item in self._writing.items() if item is None))
        self._writing = {}

    def _note_all(self, table: Any) -> None:
        """Record a table whose items were replaced as a whole: the items that it has, and that all others are gone."""
        now = {(pk, sk): json.dumps(item) for pk, row in table["items"].items() for sk, item in row.items()}
        table_id = table["TableId"]
        with closing(self._connection()) as reader:
            before = set(reader.execute("SELECT pk, sk FROM items WHERE table_id = ?", (table_id,)))
        with self._lock:
            pending = [*self._writing, *self._changed]
            before |= {(pk, sk) for place_of, pk, sk in pending if place_of == table_id}
            self._changed |= {(table_id, pk, sk): now.get((pk, sk)) for pk, sk in before | now.keys()}

    def _connection(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=1, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA journal_size_limit = {LONGEST_JOURNAL}")
        return database

    def _fill(self) -> None:
        """Put the items on disk into their tables, and remove the items of tables that are gone."""
        tables = {table["TableId"]: table for table in dynamodb._tables.all_values()}
        known = {table_id for (table_id,) in self._writer.execute("SELECT DISTINCT table_id FROM items")}
        with self._writer:
            self._writer.executemany(
                "DELETE FROM items WHERE table_id = ?", [(gone,) for gone in known - tables.keys()]
            )
        for table_id, table in tables.items():
            if table_id in known:
                table["items"] = defaultdict(dict)
                rows = self._writer.execute("SELECT pk, sk, item FROM items WHERE table_id = ?", (table_id,))
                for pk, sk, item in rows:
                    table["items"][pk][sk] = json.loads(item)
            else:
                self._note_all(table)  # a state of the first version has its items in MiniStack's own file
            self._recount(table)


class Storage:
    """All that the emulator keeps, and when it is written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._items = Items(folder / "items.sqlite")
        self._touched: set[str] = set()
        self._digests: dict[str, bytes] = {}
        self._over = False
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self.trouble = ""
        """Why the last write failed, or empty if it did not."""

    def patch(self) -> None:
        """Patch MiniStack where it reads and writes its state."""
        self._items.patch()
        ministack.app._load_persisted_state = self._load
        persistence.save_state = lambda service, _state: self.mark_changed(
            service
        )  # called at its end; `end` writes it

    def mark_changed(self, *services: str) -> None:
        """Note that a request may have changed the state of these services, or of all if none is given."""
        self._touched.update(services or ministack.app._state_map)

    async def wait_until_written(self) -> None:
        """Return when the items that changed so far are on disk, or when `trouble` says why they are not."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        await done

    async def write_until_ended(self) -> None:
        """Write what changed when a call waits for it, and twice a second, and once more after `end`."""
        ended = False
        while not ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY):
                    await self._wanted.wait()
            self._wanted.clear()
            ended = self._over
            waiting, self._waiting = self._waiting, []
            await self.write()
            for done in waiting:
                if not done.done():  # a caller that left has cancelled it
                    done.set_result(None)

    def end(self) -> None:
        """Let `write_until_ended` write once more and return."""
        self._over = True
        self._wanted.set()

    async def write(self) -> None:
        """Write what changed since the last time. On failure, `trouble` says why, and the next time tries again."""
        touched, self._touched = self._touched, set()
        states = dict(self._states(touched))
        if not self._items.take() and not states:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, states)
            self.trouble = ""
        except (OSError, sqlite3.Error) as exc:
            self.trouble = f"the emulator's state cannot be written to {self._folder}: {exc}"
            logger.error("%s", self.trouble)  # noqa: TRY400 - the traceback would be repeated twice a second
            self._touched |= touched

    def _states(self, services: set[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the state of each of the services as it is written, if MiniStack has loaded the service."""
        tellers: dict[str, Callable[[], Any]] = ministack.app._build_persistence_save_dict()
        for name in sorted(services & tellers.keys() - NOT_KEPT, key=lambda name: (name == WRITTEN_LAST, name)):
            try:
                yield name, _encoded(name, tellers[name]())
            except RuntimeError:  # a thread of MiniStack's changed it while it was read
                self._touched.add(name)

    def _write(self, states: dict[str, bytes]) -> None:
        # Items first: a state of the first version has them in a file that is replaced now by one without them.
        self._items.write()
        for name, content in states.items():
            self._replace(name, content)

    def _load(self) -> None:
        """Read each service's state. Raises UnreadableError.

        MiniStack itself would go on without a state that it cannot read, and overwrite it at its end.
        """
        for name, module in ministack.app._state_map.items():
            path = self._folder / f"{name}.json"
            if name in NOT_KEPT or not path.exists():
                continue
            try:
                state = persistence.load_state(name)
                if not isinstance(state, dict):
                    raise TypeError("it holds no state of this version of MiniStack")
                ministack.app._get_module(module).load_persisted_state(state)
            except Exception as exc:
                raise UnreadableError(f"{path} cannot be read: {exc}") from exc

    def _replace(self, name: str, content: bytes) -> None:
        digest = hashlib.sha256(content).digest()
        if self._digests.get(name) == digest:
            return
        unfinished = self._folder / f"{name}.json.unfinished"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._folder / f"{name}.json")
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._digests[name] = digest


def _encoded(service: str, state: Any) -> bytes:
    """Return a service's state as MiniStack's `load_state` reads it."""
    wrapped = {"__ministack_format__": persistence._state_format_version(service), "payload": state}
    return json.dumps(wrapped, default=persistence._json_default).encode()


def _state_without_items() -> Any:
    """Return MiniStack's state of DynamoDB with empty tables, since their items are in SQLite."""
    tables = type(dynamodb._tables)()
    for (account, region, name), table in dynamodb._tables.all_items():
        kept = {key: value for key, value in table.items() if key not in ("items", dynamodb._INDEX_MEMBERS)}
        tables.set_scoped(account, region, name, {**kept, "items": {}})
    return {"tables": tables, **{name: getattr(dynamodb, f"_{name}") for name in BESIDE_TABLES}}
