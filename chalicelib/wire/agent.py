"""The agent and its servers in Nomad's JSON (shapes from recordings of Nomad 2.0.6).

There are no servers here. The control plane is shown as one, under addresses that clients print and compare.
"""

from typing import Any, Final

REGION: Final = "global"
DATACENTER: Final = "dc1"
NAME: Final = "moorage"
HOST: Final = "127.0.0.1"
RPC_PORT: Final = 4647
SERF_PORT: Final = 4648
ADDRESS: Final = f"{HOST}:{RPC_PORT}"
"""Where a Nomad server would listen for other servers. Nothing listens there, but clients print it."""
VERSION: Final = "2.0.6"
"""The release of Nomad whose API this is. Clients compare it. So it is followed by metadata (`+moorage`), which does
not count in a comparison, and not by a pre-release, which would count as older.
"""
METADATA: Final = "moorage"

ANONYMOUS_TOKEN: Final = {
    "AccessorID": "acls-disabled",
    "CreateIndex": 0,
    "CreateTime": "0001-01-01T00:00:00Z",
    "ExpirationTTL": "",
    "ExpirationTime": None,
    "Global": False,
    "Hash": None,
    "ModifyIndex": 0,
    "Name": "ACLs disabled token",
    "Policies": None,
    "Roles": None,
    "SecretID": "",
    "Type": "client",
}
"""The token of every client while ACLs are off."""


def member() -> dict[str, Any]:
    """Return the one server as a member. `nomad server members` finds the leader by rpc_addr and port."""
    return {
        "Addr": HOST,
        "DelegateCur": 4,
        "DelegateMax": 5,
        "DelegateMin": 2,
        "Name": f"{NAME}.{REGION}",
        "Port": SERF_PORT,
        "ProtocolCur": 2,
        "ProtocolMax": 5,
        "ProtocolMin": 1,
        "Status": "alive",
        "Tags": {
            "bootstrap": "1",
            "build": f"{VERSION}+{METADATA}",
            "dc": DATACENTER,
            "expect": "1",
            "id": NAME,
            "port": str(RPC_PORT),
            "raft_vsn": "3",
            "region": REGION,
            "revision": "",
            "role": "nomad",
            "rpc_addr": HOST,
            "vsn": "1",
        },
    }


def members() -> dict[str, Any]:
    """Return all servers."""
    return {"Members": [member()], "ServerDC": DATACENTER, "ServerName": NAME, "ServerRegion": REGION}


def agent_self(*, acl_enabled: bool) -> dict[str, Any]:
    """Return the agent's configuration, its member and its figures, as far as clients read them."""
    return {
        "config": {
            "ACL": {"Enabled": acl_enabled},
            "BindAddr": HOST,
            "Client": {"Enabled": False},
            "Datacenter": DATACENTER,
            "NodeName": NAME,
            "Region": REGION,
            "Server": {"Enabled": True},
            "UI": {"Enabled": False, "ShowCLIHints": False},
            "Version": {
                "Revision": "",
                "Version": VERSION,
                "VersionMetadata": METADATA,
                "VersionPrerelease": "",
            },
        },
        "member": member(),
        "stats": {
            "nomad": {
                "bootstrap": "true",
                "known_regions": "1",
                "leader": "true",
                "leader_addr": ADDRESS,
                "server": "true",
            }
        },
    }
