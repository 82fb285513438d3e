"""Find out which call of AWS a request is, and which services' state it may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

READS: Final = ("Get", "Describe", "List", "BatchGet", "TransactGet", "Query", "Scan", "Select", "Lookup", "Filter")
WRITES_ITEMS: Final = (
    "PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems", "ExecuteStatement",
    "BatchExecuteStatement", "ExecuteTransaction",
)  # fmt: skip
LEAVES_NO_STATE: Final = {
    "dynamodb": WRITES_ITEMS,
    "kms": ("Decrypt", "Encrypt", "GenerateDataKey", "ReEncrypt", "Sign", "Verify"),
    "lambda": ("invocations",),
}
"""Calls that change no state, or only items of tables, which are recorded one by one (storage.py)."""
KEPT_NOWHERE: Final = frozenset({"logs", "sts", "xray", "monitoring"})
ALONE: Final = frozenset({"sqs"})
"""Services whose calls change only their own state. Others may change each other's, as CloudFormation does."""


@dataclass(frozen=True)
class Call:
    """A call: its service, action and HTTP method."""

    service: str
    action: str
    method: str

    @classmethod
    def of(cls, service: str, method: str, path: str, target: str, body: bytes) -> Call:
        """Read a request's action where its protocol has it: in a header, in a form, or at the end of the path."""
        if target:
            return cls(service, target.rpartition(".")[2], method)
        if body.startswith((b"Action=", b"Version=")) or b"&Action=" in body[:4096]:
            return cls(service, parse_qs(body.decode("latin-1")).get("Action", [""])[0], method)
        return cls(service, path.rstrip("/").rpartition("/")[2], method)

    @property
    def changes_items(self) -> bool:
        """Whether it may change items of DynamoDB's tables."""
        return self.service == "dynamodb" and self.action in WRITES_ITEMS

    def changes(self) -> tuple[str, ...] | None:
        """Return the services whose state it may change. An empty tuple stands for all, None for none."""
        if self.method in ("GET", "HEAD") or self.service in KEPT_NOWHERE:
            return None
        if self.action.startswith(READS) or self.action.startswith(LEAVES_NO_STATE.get(self.service, ())):
            return None
        return (self.service,) if self.service in ALONE else ()
