"""Nomad's rising index: allocated before a write, published after it (protocols, section 1).

One item holds `seq`, the last number given out, `pub#<scope>`, the number that wakes the readers of a scope, and for
every write that has allocated but not yet published `pend#<id>` (when, for which scopes) and `at#<id>` (its number). A
write is: allocate (N), write the object with modify_index N under the condition that its own is smaller, publish.
Publishing takes a fresh number, so a reader that saw the object before the publication is woken once more (allowed)
and one that did not see it is always woken (demanded). A crash in between leaves the entry, and `repair` publishes for
it. tests/blocking explores every interleaving of these steps; docs/lists-and-blocking.md says what readers do.

Scopes: volumes are spread over `VOLUME_SCOPES` scopes by their namespace, so the item stays small however many
namespaces there are; two namespaces of one scope wake each other's readers, without news.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.deadlines import LONGEST_WRITER
from chalicelib.store.dynamo import Dynamo, key, translated
from chalicelib.store.tables import SCHEMA, IndexRow

VOLUME_SCOPES: Final = 16
PLUGINS: Final = "plugins"
NODES: Final = "nodes"
NAMESPACES: Final = "namespaces"
MEMBERS: Final = "members"
"""Which plugins have volumes: one without instances is shown as long as it has some."""
REPAIR_AFTER: Final = 2 * LONGEST_WRITER
"""Seconds after which whoever allocated cannot be writing any more."""

_KEY: Final = key("index", "index")


def volume_scope(namespace: str) -> str:
    """The scope that wakes the readers of a namespace's volumes."""
    return f"volumes-{zlib.crc32(namespace.encode()) % VOLUME_SCOPES}"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A number that was given out, and what must be published for it."""

    index: int
    id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """The index item as it was read; `writing` has the scopes and the number of every write that is under way."""

    seq: int
    published: Mapping[str, int]
    writing: Sequence[tuple[tuple[str, ...], int]] = ()

    @property
    def now(self) -> int:
        """The index of an answer whose data are read, strongly, after this.

        Every change that such an answer misses is published later, with a larger number; and a later answer never has
        a smaller one, whatever it reads.
        """
        return max(self.seq, 1)

    def floor(self, scope: str) -> int:
        """What every later change in `scope` is above: the index of a thing that is not there.

        `now` would not do: a write under way may bear a smaller number, and the thing's index would go back with it.
        """
        return max(min((number - 1 for scopes, number in self.writing if scope in scopes), default=self.seq), 1)

    def of(self, scope: str) -> int:
        return self.published.get(scope, 0)

    def of_volumes(self, namespace: str) -> int:
        """What the readers of a namespace wait on; `*` is all of them."""
        if namespace == "*":
            return max((n for scope, n in self.published.items() if scope.startswith("volumes-")), default=0)
        return self.of(volume_scope(namespace))


class IndexStore:
    """The index item of one stage."""

    def __init__(self, dynamo: Dynamo) -> None:
        self._dynamo = dynamo

    def allocate(self, *scopes: str, name: str, now: float) -> Ticket:
        """A fresh number for one write that readers of `scopes` must be woken by: one write unit."""
        answer = self._update(
            # The first number is 2: whoever read before it has index 1, since 0 means "do not block". And `seq` goes
            # one further than the number: a list's index is `seq` and must differ from that of a change it did not see.
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
        """Wake the readers of the ticket's scopes; returns the number published. Safe to repeat."""
        names = _entry(ticket) | {f"#s{i}": f"pub#{scope}" for i, scope in enumerate(ticket.scopes)}
        sets = ", ".join(["seq = seq + :one"] + [f"#s{i} = seq + :one" for i in range(len(ticket.scopes))])
        answer = self._update(f"SET {sets} REMOVE #pend, #at", names, {":one": {"N": "1"}})
        return int(answer["seq"]["N"])

    def abandon(self, ticket: Ticket) -> None:
        """The write was refused: nothing to publish."""
        self._update("REMOVE #pend, #at", _entry(ticket), {}, returns="NONE")

    def watch(self, *, consistent: bool = True) -> Watch:
        """The index item: one read unit strongly, half when polled."""
        with translated():
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
        """Publish for every write that allocated long ago and never published; returns how many.

        Always publishes anew and never compares with what is published: a larger number there may be older news.
        """
        with translated():
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
        with translated():
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
