"""Nomad's rising index, which is allocated before a write and published after it (docs/protocols.md, section 1).

One item holds `seq`, the last number given out, and `pub#<scope>`, the number that wakes the readers of a scope. Each
write that has allocated and not yet published has two entries: `pend#<id>` (when, for which scopes) and `at#<id>` (its
number).

A write has three steps. It allocates N. It writes the object with modify_index N, under the condition that the stored
one is smaller. It publishes. Publishing takes a fresh number. So a reader that did not see the object is always woken,
and a reader that saw it before the publication is woken once more, which is allowed. A crash in between leaves the
entry, and `repair` publishes for it. tests/blocking explores every interleaving of these steps.
docs/lists-and-blocking.md says what readers do.

Volumes are spread over `VOLUME_SCOPES` scopes by their namespace, so the item stays small with any number of
namespaces. Two namespaces of one scope wake each other's readers, who find nothing new.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.deadlines import LONGEST_WRITER
from chalicelib.store.dynamo import Dynamo, key, translate_errors
from chalicelib.store.tables import SCHEMA, IndexRow

VOLUME_SCOPES: Final = 16
PLUGINS: Final = "plugins"
NODES: Final = "nodes"
NAMESPACES: Final = "namespaces"
MEMBERS: Final = "members"
"""The scope of which plugins have volumes: a plugin without instances is shown while it has some."""
REPAIR_AFTER: Final = 2 * LONGEST_WRITER
"""Seconds after which the process that allocated cannot be writing."""

_KEY: Final = key("index", "index")


def volume_scope(namespace: str) -> str:
    """Return the scope that wakes the readers of a namespace's volumes."""
    return f"volumes-{zlib.crc32(namespace.encode()) % VOLUME_SCOPES}"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A number that was given out, and the scopes that must be published for it."""

    index: int
    id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """The index item as it was read. `writing` has the scopes and the number of every write that is under way."""

    seq: int
    published: Mapping[str, int]
    writing: Sequence[tuple[tuple[str, ...], int]] = ()

    @property
    def now(self) -> int:
        """The index of an answer whose data are read strongly after this.

        Every change that such an answer misses is published later, with a larger number. And no later answer has a
        smaller index.
        """
        return max(self.seq, 1)

    def floor(self, scope: str) -> int:
        """Return the index of an object that is not there: every later change in `scope` has a larger one.

        `now` is too large for it. A write under way may have a smaller number, with which the object's index would go
        back.
        """
        return max(min((number - 1 for scopes, number in self.writing if scope in scopes), default=self.seq), 1)

    def of(self, scope: str) -> int:
        """Return the number that was published last for the scope. It is 0 before the first publication."""
        return self.published.get(scope, 0)

    def of_volumes(self, namespace: str) -> int:
        """Return the number that was published last for the volumes of a namespace, or of all (`*`)."""
        if namespace == "*":
            return max((n for scope, n in self.published.items() if scope.startswith("volumes-")), default=0)
        return self.of(volume_scope(namespace))


class IndexStore:
    """The index item of one stage."""

    def __init__(self, dynamo: Dynamo) -> None:
        self._dynamo = dynamo

    def allocate(self, *scopes: str, name: str, now: float) -> Ticket:
        """Allocate a number for one write that must wake the readers of `scopes`. It costs one write unit."""
        answer = self._update(
            # The first number is 2: a reader that came before it has index 1, since 0 means "do not block". And `seq`
            # rises to one above the number: a list's index is `seq`, and must not equal that of a change it missed.
            "SET #pend = :pend, #at = if_not_exists(seq, :one) + :one, seq = if_not_exists(seq, :one) + :two, "
            "#schema = :schema",
            {"#pend": f"pend#{name}", "#at": f"at#{name}", "#schema": "schema"},
            {
                ":pend": {"S": f"{now:.0f} {' '.join(scopes)}"},
                ":schema": {"N": str(SCHEMA)},
                ":one": {"N": "1"},
                ":two": {"N": "2"},
            },
        )
        return Ticket(int(answer[f"at#{name}"]["N"]), name, scopes)

    def publish(self, ticket: Ticket) -> int:
        """Wake the readers of the ticket's scopes, and return the number published. It is safe to repeat."""
        names = _entry(ticket) | {f"#s{i}": f"pub#{scope}" for i, scope in enumerate(ticket.scopes)}
        sets = ", ".join(["seq = seq + :one"] + [f"#s{i} = seq + :one" for i in range(len(ticket.scopes))])
        answer = self._update(f"SET {sets} REMOVE #pend, #at", names, {":one": {"N": "1"}})
        return int(answer["seq"]["N"])

    def abandon(self, ticket: Ticket) -> None:
        """Drop the ticket of a write that was refused: there is nothing to publish."""
        self._update("REMOVE #pend, #at", _entry(ticket), {}, returns="NONE")

    def watch(self, *, consistent: bool = True) -> Watch:
        """Read the index item. A strongly consistent read costs one read unit, a poll half of one."""
        with translate_errors():
            item = self._dynamo.client.get_item(
                TableName=IndexRow.Meta.table_name, Key=_KEY, ConsistentRead=consistent
            ).get("Item", {})
        published = {name[4:]: int(value["N"]) for name, value in item.items() if name.startswith("pub#")}
        writing = [
            (tuple(value["S"].split(" ")[1:]), int(item[f"at#{name[5:]}"]["N"]))
            for name, value in item.items()
            if name.startswith("pend#")
        ]
        return Watch(int(item.get("seq", {"N": "0"})["N"]), published, writing)

    def repair(self, now: float) -> int:
        """Publish for each write that allocated long ago and never published. Return how many there were.

        Each gets a fresh number, even where a larger one is published already: that one may be of an older change.
        """
        with translate_errors():
            item = self._dynamo.client.get_item(TableName=IndexRow.Meta.table_name, Key=_KEY, ConsistentRead=True).get(
                "Item", {}
            )
        repaired = 0
        for name, value in item.items():
            if name.startswith("pend#"):
                moment, *scopes = value["S"].split(" ")
                if now - float(moment) > REPAIR_AFTER:
                    self.publish(Ticket(0, name[5:], tuple(scopes)))
                    repaired += 1
        return repaired

    def _update(
        self, expression: str, names: dict[str, str], values: dict[str, Any], returns: str = "UPDATED_NEW"
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        with translate_errors():
            answer = self._dynamo.client.update_item(
                TableName=IndexRow.Meta.table_name,
                Key=_KEY,
                UpdateExpression=expression,
                ExpressionAttributeNames=names,
                ReturnValues=returns,
                **arguments,
            )
        return dict(answer.get("Attributes", {}))


def _entry(ticket: Ticket) -> dict[str, str]:
    return {"#pend": f"pend#{ticket.id}", "#at": f"at#{ticket.id}"}
