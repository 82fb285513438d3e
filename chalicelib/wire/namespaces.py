"""Namespaces in Nomad's JSON."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from chalicelib.wire.shapes import NAMESPACE

FIELDS: Final = (
    "Capabilities",
    "ConsulConfiguration",
    "Description",
    "Meta",
    "NodePoolConfiguration",
    "OptionalExtraClaims",
    "Quota",
    "RequiredExtraClaims",
    "VaultConfiguration",
)


def namespace(name: str, body: Mapping[str, Any], *, create_index: int, modify_index: int) -> dict[str, Any]:
    """Return one namespace. `body` is what `stored` returned for a request."""
    shown: dict[str, Any] = {field: body.get(field) for field in FIELDS}
    shown["Description"] = shown["Description"] or ""
    shown["Quota"] = shown["Quota"] or ""
    text = json.dumps([name, shown], sort_keys=True)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return shown | {"CreateIndex": create_index, "Hash": digest, "ModifyIndex": modify_index, "Name": name}


def stored(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a decoded request that are stored."""
    return {field: body[field] for field in FIELDS if field in body and body[field] not in (None, "")}


SHAPE: Final = NAMESPACE
