"""The worker's side of queries to plugins: open the secrets, make the call, and answer in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chalicelib.domain.call import CallOptions
from chalicelib.domain.external import Page
from chalicelib.domain.secrets import Opener, encryption_context, plugin_encryption_context
from chalicelib.errors import PluginError
from chalicelib.plugin_queries.shapes import (
    ListSnapshots,
    ListVolumes,
    Query,
    ValidateVolume,
    decode_query,
    encode_answer,
    encode_error,
)

if TYPE_CHECKING:
    # The API imports this package, and must not import grpc.
    from chalicelib.csi.calls import CsiCalls


def answer(calls: CsiCalls, opener: Opener, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to the query in `event`. An error of the plugin is an answer too."""
    query, seconds = decode_query(event)
    until = calls.channels.monotonic() + seconds
    try:
        return encode_answer(_ask(calls, opener, query, until))
    except PluginError as exc:
        return encode_error(exc)


def _ask(calls: CsiCalls, opener: Opener, query: Query, until: float) -> Page[Any] | None:
    match query:
        case ValidateVolume(volume, sealed_secrets):
            secrets = opener.open_secrets(sealed_secrets, encryption_context(volume.namespace, volume.id))
            calls.validate_volume_capabilities(volume, call=CallOptions(until, secrets))
            return None
        case ListVolumes(plugin_id, per_page, next_token):
            return calls.list_volumes(plugin_id, per_page=per_page, next_token=next_token, call=CallOptions(until))
        case ListSnapshots(plugin_id, per_page, next_token, sealed_secrets):
            secrets = opener.open_secrets(sealed_secrets, plugin_encryption_context(plugin_id))
            call = CallOptions(until, secrets)
            return calls.list_snapshots(plugin_id, per_page=per_page, next_token=next_token, call=call)
