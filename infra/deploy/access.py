"""Who may call a deployed API: the resource policy of the REST API. Until there are ACLs, nothing else protects it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST: Final = 50
"""Networks that fit, in their longest spelling, into the deployment's record: a parameter has 8 KB (record.py)."""
PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "fc00::/7",
        "fe80::/10", "::1/128",
    )
)  # fmt: skip
"""Addresses that no request from the internet has. A regional API can be reached from the internet only."""


class AccessError(Exception):
    """The options cannot be meant so. The text says why and what to write."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call: the addresses of `networks`, or `everyone`."""

    networks: tuple[str, ...] = ()
    everyone: bool = False

    def __post_init__(self) -> None:
        if self.everyone == bool(self.networks):
            raise ValueError("an API serves either some networks or everyone")

    def __str__(self) -> str:
        if self.everyone:
            return "OPEN: anyone on the internet may use it, and it has no ACLs yet; --allow-cidr CIDR closes it"
        return f"closed: it serves {', '.join(self.networks)} alone"


def parse(cidrs: Sequence[str], *, everyone: bool) -> Access | None:
    """Read the options --allow-cidr and --open. Return None if neither is given. Raises AccessError."""
    if everyone:
        return Access(everyone=True)
    if not cidrs:
        return None
    texts = [part.strip() for text in cidrs for part in text.split(",") if part.strip()]
    if not texts:
        raise AccessError("--allow-cidr names no network: write, for example, --allow-cidr 203.0.113.0/24")
    networks = list(dict.fromkeys(_network(text) for text in texts))
    if _cover_everything(networks):
        raise AccessError(f"--allow-cidr {','.join(texts)} is everyone: if you mean that, say --open")
    for network in networks:
        _refuse_private(network)
    if len(networks) > MOST:
        raise AccessError(
            f"--allow-cidr: {len(networks)} networks are more than the {MOST} that can be kept; join some"
        )
    return Access(networks=tuple(str(network) for network in networks))


def resource_policy(access: Access) -> dict[str, Any]:
    """Return the resource policy. API Gateway refuses what it does not allow with 403, before any function runs.

    An open API has a policy, too: an import without a policy might leave the one before as it is.
    """
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "execute-api:Invoke",
        "Resource": "execute-api:/*",
    }
    if not access.everyone:
        statement["Condition"] = {"IpAddress": {"aws:SourceIp": list(access.networks)}}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        address = ipaddress.ip_interface(text)
    except ValueError as exc:
        raise AccessError(f"--allow-cidr {text} is not a CIDR: write, for example, 203.0.113.0/24") from exc
    one = ipaddress.ip_network(address.ip)
    raise AccessError(
        f"--allow-cidr {text} has host bits set: write {address.network} for the network, {one} for the one address"
    )


def _cover_everything(networks: Iterable[Network]) -> bool:
    """Return whether they cover all addresses of IPv4, or all of IPv6."""
    fours = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    sixes = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    joined: list[Network] = [*ipaddress.collapse_addresses(fours), *ipaddress.collapse_addresses(sixes)]
    return any(network.prefixlen == 0 for network in joined)


def _refuse_private(network: Network) -> None:
    for private in PRIVATE:
        if network.version == private.version and network.subnet_of(private):  # type: ignore[arg-type]
            raise AccessError(
                f"--allow-cidr {network} is a private network, and the API sees the public address through which a "
                "request leaves it: write that of the NAT gateway or router"
            )
