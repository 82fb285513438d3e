"""The messages of bridges in JSON (docs/interfaces.md, section 4): registrations, farewells and their answers.

The tables declare the value of each key. Other keys are ignored, so a newer bridge may send more.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import GRACE, HEARTBEAT_SECONDS, LONGEST_CALL, LONGEST_GRACE
from chalicelib.domain.plugin import Instance
from chalicelib.domain.registration import Farewell, Registration
from chalicelib.errors import RequestError
from chalicelib.wire import claims

PROTOCOL: Final = 1
"""Version of the bridge protocol. Bridges one version older or newer are accepted."""
_REQUIRED: Final = object()


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a key. `default` replaces null or an absent value. `refusal` follows the key's name in an error."""

    fits: Callable[[Any], bool]
    refusal: str
    default: Any = _REQUIRED


def _is_count(value: Any) -> bool:
    """Return whether a JSON value is an integer. In Python a bool is an int, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    """Return whether a JSON value is a number of seconds. Python's JSON also has NaN and Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


ID: Final = Value(lambda value: isinstance(value, str) and value != "", "is missing or not a str")
TEXT: Final = Value(lambda value: isinstance(value, str), "is not a str", "")
NUMBER: Final = Value(_is_count, "is missing or not a int")
COUNT: Final = Value(_is_count, "is not a int", 0)
HEALTHY: Final = Value(lambda value: isinstance(value, bool), "is missing or not a bool")
FLAG: Final = Value(lambda value: isinstance(value, bool), "is not a bool", default=False)
NAMES: Final = Value(_are_names, "must be a list of names", ())
LIST: Final = Value(lambda value: isinstance(value, list), "is missing or not a list")
OBJECT: Final = Value(lambda value: isinstance(value, dict), "is not a dict", {})
SERIALIZE: Final = Value(lambda value: value in ("", "node", "plugin"), 'must be "", "node" or "plugin"', "")
SECONDS: Final = Value(_is_seconds, "must be a number of seconds, not negative")

FAREWELL: Final[Mapping[str, Value]] = {"NodeID": ID, "InstanceID": ID, "Sequence": NUMBER}
REGISTRATION: Final[Mapping[str, Value]] = {
    "NodeID": ID,
    "NodeName": TEXT,
    "InstanceID": ID,
    "Sequence": NUMBER,
    "Address": ID,
    "BridgeVersion": TEXT,
    "CertificatePEM": ID,
    "Plugins": LIST,
}
PLUGIN: Final[Mapping[str, Value]] = {
    "ID": ID,
    "Healthy": HEALTHY,
    "HealthDescription": TEXT,
    "Provider": TEXT,
    "ProviderVersion": TEXT,
    "Controller": FLAG,
    "Node": FLAG,
    "ControllerCapabilities": NAMES,
    "NodeCapabilities": NAMES,
    "PluginCapabilities": NAMES,
    "NodeInfo": OBJECT,
    "Serialize": SERIALIZE,
    "DeadlineSeconds": OBJECT,
    "GraceSeconds": Value(_is_seconds, SECONDS.refusal, GRACE),
}
NODE_INFO: Final[Mapping[str, Value]] = {"ID": TEXT, "MaxVolumes": COUNT, "AccessibleTopology": OBJECT}
TOPOLOGY: Final[Mapping[str, Value]] = {"Segments": OBJECT}


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a message. Raises RequestError 400."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RequestError("registration is not JSON") from exc
    if not isinstance(message, dict):
        raise RequestError("registration must be a JSON object")
    return message


def certificate(message: Mapping[str, Any]) -> str:
    """Return the certificate (PEM) of a registration, without reading anything else of it."""
    return str(_checked(message.get("CertificatePEM"), ID, "CertificatePEM"))


def farewell(message: Mapping[str, Any], node_id: str) -> Farewell:
    """Return the farewell of a node's bridge. Raises RequestError, which names the field that does not fit."""
    said = _read(message, FAREWELL)
    _check_node(said, node_id)
    return Farewell(said["InstanceID"], said["Sequence"])


def registration(message: Mapping[str, Any], node_id: str, *, serial: str) -> Registration:
    """Return a node's registration. `serial` is that of the certificate that signed it.

    Raises RequestError: 426 for a protocol that is too old or too new, else 400, which names the field.
    """
    _check_protocol(_checked(message.get("Protocol"), NUMBER, "Protocol"))
    said = _read(message, REGISTRATION)
    _check_node(said, node_id)
    instances = tuple(
        _instance(item, f"Plugins[{position}]", node_id=node_id, address=said["Address"], serial=serial)
        for position, item in enumerate(said["Plugins"])
    )
    if len({instance.plugin_id for instance in instances}) < len(instances):
        raise RequestError("Plugins holds one ID twice: run one plugin of an ID on a node")
    return Registration(
        node_id=node_id,
        node_name=said["NodeName"] or node_id,
        instance_id=said["InstanceID"],
        sequence=said["Sequence"],
        address=said["Address"],
        bridge_version=said["BridgeVersion"],
        certificate_pem=said["CertificatePEM"],
        instances=instances,
    )


def registered(index: int, *, refused: Sequence[str], lost: Iterable[Claim]) -> dict[str, Any]:
    """Return the answer to a registration."""
    return {
        "HeartbeatSeconds": HEARTBEAT_SECONDS,
        "Index": index,
        "Lost": [claims.lost(claim) for claim in lost],
        "Protocol": PROTOCOL,
        "Refused": list(refused),
    }


def _check_protocol(protocol: int) -> None:
    if protocol < max(1, PROTOCOL - 1):
        raise RequestError(
            f"bridge protocol {protocol} is too old, {PROTOCOL} is spoken: update the bridge", status=426
        )
    if protocol > PROTOCOL + 1:
        raise RequestError(
            f"bridge protocol {protocol} is too new, {PROTOCOL} is spoken: update the control plane first", status=426
        )


def _check_node(said: Mapping[str, Any], node_id: str) -> None:
    if said["NodeID"] != node_id:
        raise RequestError("NodeID in the body does not match the request path")


def _instance(item: Any, where: str, *, node_id: str, address: str, serial: str) -> Instance:
    if not isinstance(item, dict):
        raise RequestError(f"{where} must be an object")
    said = _read(item, PLUGIN, f"{where}.")
    info = _read(said["NodeInfo"], NODE_INFO, f"{where}.NodeInfo.")
    if info["MaxVolumes"] < 0:
        raise RequestError(f"{where}.NodeInfo.MaxVolumes must not be negative")
    return Instance(
        plugin_id=said["ID"],
        node_id=node_id,
        address=address,
        healthy=said["Healthy"],
        serial=serial,
        health_description=said["HealthDescription"],
        provider=said["Provider"],
        provider_version=said["ProviderVersion"],
        controller=said["Controller"],
        node=said["Node"],
        controller_capabilities=frozenset(said["ControllerCapabilities"]),
        node_capabilities=frozenset(said["NodeCapabilities"]),
        plugin_capabilities=frozenset(said["PluginCapabilities"]),
        external_node_id=info["ID"],
        max_volumes=info["MaxVolumes"],
        topology=_segments(info["AccessibleTopology"], f"{where}.NodeInfo.AccessibleTopology."),
        serialize=said["Serialize"],
        deadlines={
            rpc: min(float(_checked(value, SECONDS, f"{where}.DeadlineSeconds.{rpc}")), float(LONGEST_CALL))
            for rpc, value in said["DeadlineSeconds"].items()
        },
        grace=min(float(said["GraceSeconds"]), float(LONGEST_GRACE)),
    )


def _segments(topology: Mapping[str, Any], where: str) -> dict[str, str] | None:
    segments: dict[str, str] = _read(topology, TOPOLOGY, where)["Segments"]
    if not all(isinstance(value, str) for value in segments.values()):
        raise RequestError(f"{where}Segments must hold strings")
    return segments or None


def _read(message: Mapping[str, Any], table: Mapping[str, Value], where: str = "") -> dict[str, Any]:
    """Return the value of every key in the table. Raises RequestError, which names the first that does not fit."""
    return {key: _checked(message.get(key), value, where + key) for key, value in table.items()}


def _checked(given: Any, value: Value, where: str) -> Any:
    if given is None and value.default is not _REQUIRED:
        return value.default
    if not value.fits(given):
        raise RequestError(f"{where} {value.refusal}")
    return given
