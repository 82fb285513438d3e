"""Volumes in their table: reads, and one function for each write about a volume.

A write that changes what clients see sets `modify_index` to an index that was allocated for it, under the condition
that the stored one is smaller (store/index.py). Reserving a volume for an operation changes nothing that clients see,
and needs no index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.volume import Capability, Definition, Made, MountOptions, TopologyRequest, Volume, VolumeState
from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import Dynamo, Raw, Write
from chalicelib.store.tables import CheckRow, MemberRow, VolumeRow

PAGE: Final = 500
"""Items read at once. DynamoDB ends a page at 1 MB in any case."""

_ABSENT: Final = VolumeRow.pk.does_not_exist() | (VolumeRow.state == VolumeState.GONE.value)


class VolumeStore:
    """The volumes of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def get(self, namespace: str, volume_id: str, *, consistent: bool = True) -> Volume | None:
        """Return the record in any state, a tombstone too, or None if there is none."""
        row = self._dynamo.get(VolumeRow, tables.volumes_pk(namespace), volume_id, consistent=consistent)
        return None if row is None else _volume(row)

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Volume]:
        """Return the records of these (namespace, ID) that exist, in this order, read strongly."""
        keys = [key(namespace, volume_id) for namespace, volume_id in places]
        rows = self._dynamo.batch_get(VolumeRow, keys)
        return [_volume(rows[k]) for k in keys if k in rows]

    def in_namespace(
        self, namespace: str, *, prefix: str = "", start: str | None = None, limit: int = PAGE
    ) -> Iterator[list[Volume]]:
        """Yield pages of the namespace's records by ID, tombstones included, read strongly.

        The first page has `limit` records. Each further page has twice as many, up to `PAGE`.
        """
        after: str | None = None
        while True:
            page = self._dynamo.query(
                VolumeRow, tables.volumes_pk(namespace), prefix=prefix, after=after, start=start, limit=limit
            )
            yield [_volume(row) for row in page.rows]
            if page.next_key is None:
                return
            after, limit = page.next_key, min(2 * limit, PAGE)

    def of_plugin(
        self,
        plugin_id: str,
        *,
        namespace: str | None = None,
        prefix: str = "",
        start: str | None = None,
        limit: int = PAGE,
    ) -> Iterator[list[Volume]]:
        """Yield pages of the plugin's records by namespace and ID, read strongly. Their sizes grow as above.

        With a namespace, `start` is an ID in it. Without one, it is `<namespace>#<id>`.
        """
        after: str | None = None
        begins = tables.member_sk(namespace, prefix) if namespace is not None else ""
        first = start if start is None or namespace is None else tables.member_sk(namespace, start)
        while True:
            page = self._dynamo.query(
                MemberRow, tables.members_pk(plugin_id), prefix=begins, after=after, start=first, limit=limit
            )
            yield self._members(page.rows)
            if page.next_key is None:
                return
            after, limit = page.next_key, min(2 * limit, PAGE)

    def some_of_plugin(self, plugin_id: str, *, after: str | None, limit: int) -> tuple[list[Volume], str | None]:
        """Return at most `limit` of the plugin's records, and the key after which to continue (None at the end)."""
        page = self._dynamo.query(MemberRow, tables.members_pk(plugin_id), after=after, limit=limit)
        return self._members(page.rows), page.next_key

    def last_check(self) -> tuple[str, str | None]:
        """Return the plugin, and the key after which to continue in it, where the check of counters stopped."""
        row = self._dynamo.get(CheckRow, "sweep", "counters")
        return ("", None) if row is None else (row.plugin_id, row.after)

    def record_check(self, plugin_id: str, after: str | None) -> None:
        """Record where the check of counters stopped."""
        self._dynamo.put(CheckRow("sweep", "counters", plugin_id=plugin_id, after=after))

    def _members(self, rows: Sequence[MemberRow]) -> list[Volume]:
        keys = []
        for row in rows:
            namespace, volume_id = tables.member_of(row.sk)
            keys.append((tables.volumes_pk(namespace), volume_id))
        volumes = self._dynamo.batch_get(VolumeRow, keys)
        return [_volume(volumes[k]) for k in keys if k in volumes]

    def has_members(self, plugin_id: str) -> bool:
        """Return whether any volume belongs to the plugin."""
        return bool(self._dynamo.query(MemberRow, tables.members_pk(plugin_id), limit=1).rows)


def volume_of(raw: Raw | None) -> Volume | None:
    """Return the volume of a raw item, as a refused transaction holds it."""
    row = dynamo.load(VolumeRow, raw)
    return None if row is None else _volume(row)


# Writes of a transaction about a volume, each with its conditions.


def reserve(volume: Volume, *, operation_id: str, kind: str) -> Write:
    """Reserve the ID for a create, if no volume has it. Of two concurrent creates, one is refused here.

    This is an update, not a put. It keeps the index of a tombstone, so the index of one ID never goes back.
    """
    actions: list[Action] = [
        VolumeRow.state.set(VolumeState.CREATING.value),
        VolumeRow.operation_id.set(operation_id),
        VolumeRow.operation_kind.set(kind),
        VolumeRow.schema.set(tables.SCHEMA),
        VolumeRow.modify_index.set(VolumeRow.modify_index | 0),
        VolumeRow.revision.set((VolumeRow.revision | 0) + 1),
        VolumeRow.expires_at.remove(),
    ]
    return dynamo.update("volume", VolumeRow, *_key(volume), actions, _ABSENT)


def release_reservation(volume_key: tuple[str, str], *, operation_id: str, expires_at: int) -> Write:
    """Make a reserved ID a tombstone again, with the index it had: the create will not happen."""
    actions: list[Action] = [
        VolumeRow.state.set(VolumeState.GONE.value),
        VolumeRow.revision.add(1),
        VolumeRow.operation_id.remove(),
        VolumeRow.operation_kind.remove(),
        VolumeRow.expires_at.set(expires_at),
    ]
    return dynamo.update("volume", VolumeRow, *volume_key, actions, _held_by(operation_id))


def create(volume: Volume, index: int, *, operation_id: str) -> list[Write]:
    """Put the reserved volume with what the provider answered: it exists from now on."""
    put = replace(volume, create_index=index, modify_index=index, state=VolumeState.READY)
    condition = _held_by(operation_id) & (VolumeRow.modify_index < index)
    return [dynamo.put("volume", _row(put), condition), _member(volume)]


def register(volume: Volume, index: int) -> list[Write]:
    """Put a volume that exists at its provider, if no volume has the ID."""
    put = replace(volume, create_index=index, modify_index=index, state=VolumeState.READY)
    condition = _ABSENT & (VolumeRow.modify_index.does_not_exist() | (VolumeRow.modify_index < index))
    return [dynamo.put("volume", _row(put), condition), _member(volume)]


def replace_definition(volume: Volume, index: int, *, read: Volume) -> Write:
    """Update a ready volume, if neither it nor its claims changed since it was `read`."""
    put = replace(volume, modify_index=index, revision=read.revision + 1)
    condition = (VolumeRow.revision == read.revision) & (VolumeRow.modify_index < index)
    return dynamo.put("volume", _row(put), condition & (VolumeRow.state == VolumeState.READY.value) & _idle())


def redefine(volume: Volume, index: int, *, operation_id: str, secrets: bytes) -> Write:
    """Write a new definition of the volume that an operation holds, with `secrets` if given, and end the hold.

    This is an update, not a put: claims that came meanwhile keep their counters and modes.
    """
    actions: list[Action] = [
        VolumeRow.definition.set(encode(volume.definition)),
        VolumeRow.modify_index.set(index),
        VolumeRow.modify_time.set(volume.modify_time),
        VolumeRow.revision.add(1),
        VolumeRow.operation_id.remove(),
        VolumeRow.operation_kind.remove(),
    ]
    if secrets:
        actions.append(VolumeRow.secrets.set(secrets))
    condition = _held_by(operation_id) & (VolumeRow.modify_index < index)
    return dynamo.update("volume", VolumeRow, *_key(volume), actions, condition)


def mark(volume: Volume, *, operation_id: str, kind: str, state: VolumeState, unclaimed: bool) -> Write:
    """Hold a ready volume for an operation. With `unclaimed`, only if it has no claim, live or past."""
    actions: list[Action] = [
        VolumeRow.state.set(state.value),
        VolumeRow.operation_id.set(operation_id),
        VolumeRow.operation_kind.set(kind),
        VolumeRow.revision.add(1),
    ]
    condition = (VolumeRow.state == VolumeState.READY.value) & _idle()
    return dynamo.update(
        "volume", VolumeRow, *_key(volume), actions, condition & _unclaimed() if unclaimed else condition
    )


def unmark(volume_key: tuple[str, str], *, operation_id: str, calls_until: float | None = None) -> Write:
    """Make the volume ready again: its operation has ended without effect.

    `calls_until` (epoch seconds) is until when a call of it may still land. It is 0 when every call was answered, and
    None when no call was made, which keeps what an earlier operation left.
    """
    actions: list[Action] = [
        VolumeRow.state.set(VolumeState.READY.value),
        VolumeRow.revision.add(1),
        VolumeRow.operation_id.remove(),
        VolumeRow.operation_kind.remove(),
    ]
    if calls_until is not None:
        actions.append(VolumeRow.calls_until.set(calls_until))
    return dynamo.update("volume", VolumeRow, *volume_key, actions, _held_by(operation_id))


def share(volume: Volume, label: str) -> Write:
    """Mark a volume whose storage another record names from now on, if neither it nor its claims changed since."""
    actions: list[Action] = [VolumeRow.shared.set(True), VolumeRow.revision.add(1)]
    return dynamo.update(label, VolumeRow, *_key(volume), actions, _as_read(volume))


def unchanged(volume: Volume) -> Write:
    """Check that neither the volume nor its claims changed since it was read."""
    return dynamo.check("volume", VolumeRow, *_key(volume), _as_read(volume))


def bury(
    namespace: str, volume_id: str, plugin_id: str, index: int, *, expires_at: int, condition: Condition
) -> list[Write]:
    """Replace the volume by a tombstone, which keeps the index and nothing else."""
    tombstone = VolumeRow(
        tables.volumes_pk(namespace),
        volume_id,
        state=VolumeState.GONE.value,
        modify_index=index,
        expires_at=expires_at,
    )
    member = (tables.members_pk(plugin_id), tables.member_sk(namespace, volume_id))
    return [
        dynamo.put("volume", tombstone, condition & (VolumeRow.modify_index < index)),
        dynamo.delete("member", MemberRow, *member),
    ]


def delete(
    namespace: str, volume_id: str, plugin_id: str, index: int, *, expires_at: int, operation_id: str
) -> list[Write]:
    """Replace the volume that this operation holds by a tombstone."""
    return bury(namespace, volume_id, plugin_id, index, expires_at=expires_at, condition=_held_by(operation_id))


def deregister(volume: Volume, index: int, *, expires_at: int, force: bool = False) -> list[Write]:
    """Replace a ready volume that has no claim and that no operation holds by a tombstone.

    With `force`, its claims may be past, if its counters are as they were read.
    """
    counted = (
        (VolumeRow.readers == volume.readers)
        & (VolumeRow.writers == volume.writers)
        & (VolumeRow.past_claims == volume.readers + volume.writers)
    )
    condition = (VolumeRow.state == VolumeState.READY.value) & _idle() & (counted if force else _unclaimed())
    return bury(volume.namespace, volume.id, volume.plugin_id, index, expires_at=expires_at, condition=condition)


def key(namespace: str, volume_id: str) -> tuple[str, str]:
    return tables.volumes_pk(namespace), volume_id


def _key(volume: Volume) -> tuple[str, str]:
    return key(volume.namespace, volume.id)


def _as_read(volume: Volume) -> Condition:
    same: Condition = (VolumeRow.revision == volume.revision) & (VolumeRow.create_index == volume.create_index)
    same &= VolumeRow.state == volume.state.value
    return same


def _held_by(operation_id: str) -> Condition:
    return VolumeRow.operation_id == operation_id


def _idle() -> Condition:
    return VolumeRow.operation_id.does_not_exist()


def _unclaimed() -> Condition:
    free: Condition = (VolumeRow.readers == 0) & (VolumeRow.writers == 0) & (VolumeRow.past_claims == 0)
    return free


def _member(volume: Volume) -> Write:
    row = MemberRow(tables.members_pk(volume.plugin_id), tables.member_sk(volume.namespace, volume.id))
    return dynamo.put("member", row)


def _row(volume: Volume) -> VolumeRow:
    return VolumeRow(
        *_key(volume),
        state=volume.state.value,
        revision=volume.revision,
        plugin_id=volume.plugin_id,
        operation_id=volume.operation_id or None,
        operation_kind=volume.operation_kind or None,
        create_index=volume.create_index,
        modify_index=volume.modify_index,
        create_time=volume.create_time,
        modify_time=volume.modify_time,
        calls_until=volume.calls_until or None,
        access_mode=volume.access_mode or None,
        attachment_mode=volume.attachment_mode or None,
        readers=volume.readers,
        writers=volume.writers,
        past_claims=volume.past_claims,
        shared=volume.shared or None,
        secrets=volume.sealed_secrets or None,
        definition=encode(volume.definition),
    )


def _volume(row: VolumeRow) -> Volume:
    return Volume(
        namespace=row.pk.partition("#")[2],
        id=row.sk,
        plugin_id=row.plugin_id or "",
        definition=decode(row.definition) if row.definition else Definition(),
        create_index=int(row.create_index),
        modify_index=int(row.modify_index),
        create_time=int(row.create_time),
        modify_time=int(row.modify_time),
        state=VolumeState(row.state),
        operation_id=row.operation_id or "",
        operation_kind=row.operation_kind or "",
        calls_until=float(row.calls_until or 0),
        access_mode=row.access_mode or "",
        attachment_mode=row.attachment_mode or "",
        readers=int(row.readers),
        writers=int(row.writers),
        past_claims=int(row.past_claims),
        shared=bool(row.shared),
        sealed_secrets=row.secrets or b"",
        revision=int(row.revision),
    )


_PLAIN: Final = (
    "name", "external_id", "parameters", "context", "capacity", "capacity_min", "capacity_max", "clone_id",
    "snapshot_id", "provider", "provider_version",
)  # fmt: skip
"""Fields of a definition that are stored as they are, in this order, unless they are empty."""


def encode(definition: Definition) -> str:
    """Return the definition as it is stored: JSON, which keeps integers, and keeps null apart from empty.

    The condition of a claim compares it with the stored text (store/claims.py). So a definition must have the same text
    in every version of this code.
    """
    return json.dumps(as_json(definition), separators=(",", ":"), ensure_ascii=False)


def as_json(definition: Definition) -> dict[str, Any]:
    """Return the definition in JSON's types."""
    body: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(definition, name)) not in ("", 0, None)}
    body["capabilities"] = [[c.access_mode, c.attachment_mode] for c in definition.capabilities]
    if definition.mount_options is not None:
        body["mount"] = [definition.mount_options.fs_type, definition.mount_options.mount_flags]
    if definition.topologies is not None:
        body["topologies"] = definition.topologies
    if definition.topology_request is not None:
        body["request"] = [definition.topology_request.required, definition.topology_request.preferred]
    return body


def decode(text: str) -> Definition:
    """Return the definition that `encode` wrote. A field that is absent is empty."""
    body = json.loads(text)
    mount, request = None, None
    if "mount" in body:
        fs_type, flags = body["mount"]
        mount = MountOptions(fs_type, None if flags is None else tuple(flags))
    if "request" in body:
        required, preferred = (None if part is None else tuple(part) for part in body["request"])
        request = TopologyRequest(required, preferred)
    return Definition(
        capabilities=tuple(Capability(*pair) for pair in body["capabilities"]),
        mount_options=mount,
        topologies=tuple(body["topologies"]) if "topologies" in body else None,
        topology_request=request,
        **{name: body[name] for name in _PLAIN if name in body},
    )


def encode_made(made: Made) -> dict[str, Any]:
    """Return what the provider made in JSON's types, for the result of a create."""
    return asdict(made)


def decode_made(result: Mapping[str, Any]) -> Made:
    """Return what the provider made, from the result of a create."""
    given = {name: result[name] for name in Made.__slots__}
    return Made(**given | {"topologies": tuple(given["topologies"])})
