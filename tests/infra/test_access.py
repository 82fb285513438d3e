"""Who may call a deployed API: what is refused as a choice, and the policy that Chalice gives to API Gateway."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.deploy import access, render
from infra.deploy.access import Access, AccessError
from tests.infra.chalices_reading import swagger

PLACE = render.Place(stage="blue", region="eu-central-1", account="1", key_arn="arn:aws:kms:eu-central-1:1:key/k")
ALL = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}


def given(*cidrs: str) -> tuple[str, ...]:
    chosen = access.parse(cidrs, everyone=False)
    assert chosen is not None
    assert not chosen.everyone
    return chosen.networks


def test_networks_are_repeated_or_separated_by_commas_and_written_in_one_way() -> None:
    assert given("203.0.113.0/24, 198.51.100.7", "2001:DB8:0::/32,", "203.0.113.0/24") == (
        "203.0.113.0/24",
        "198.51.100.7/32",
        "2001:db8::/32",
    )


def test_what_was_not_said_is_no_choice() -> None:
    assert access.parse((), everyone=False) is None
    assert access.parse((), everyone=True) == Access(everyone=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "203.0.113.7/24",
            "has host bits set: write 203.0.113.0/24 for the network, 203.0.113.7/32 for the one address",
        ),
        (
            "2001:db8::1/32",
            "has host bits set: write 2001:db8::/32 for the network, 2001:db8::1/128 for the one address",
        ),
        ("203.0.113/24", "is not a CIDR: write, for example, 203.0.113.0/24"),
        ("203.0.113.0/33", "is not a CIDR"),
        ("office.example.com", "is not a CIDR"),
        ("8", "is not a CIDR"),
        ("0.0.0.0/0", "is everyone: if you mean that, say --open"),
        ("::/0", "is everyone: if you mean that, say --open"),
        ("0.0.0.0/1,128.0.0.0/1", "is everyone: if you mean that, say --open"),
        ("10.64.0.0/24", "is a private network, and the API sees the public address"),
        ("172.16.0.1", "is a private network"),
        ("100.64.0.0/10", "is a private network"),
        ("127.0.0.1", "is a private network"),
        ("fd00::/8", "is a private network"),
        ("", "names no network"),
        (" , ", "names no network"),
        (",".join(f"203.0.113.{n}" for n in range(access.MOST + 1)), "51 networks are more than the 50"),
    ],
)
def test_what_is_no_useful_network_is_refused_with_what_to_do(text: str, words: str) -> None:
    with pytest.raises(AccessError) as caught:
        access.parse([text], everyone=False)
    assert words in str(caught.value)
    assert str(caught.value).startswith("--allow-cidr")


def test_as_many_networks_as_fit_are_taken() -> None:
    assert len(given(",".join(f"203.0.113.{n}" for n in range(access.MOST)))) == access.MOST


@pytest.mark.parametrize("fields", [{}, {"networks": ("203.0.113.0/24",), "everyone": True}])
def test_neither_none_nor_both_can_be_written_down(fields: dict[str, Any]) -> None:
    """An empty list must not become an open API, nor one that is out of reach."""
    with pytest.raises(ValueError, match="either"):
        Access(**fields)


@pytest.mark.parametrize(
    ("chosen", "statement"),
    [
        (
            Access(networks=("203.0.113.0/24", "2001:db8::/32")),
            {**ALL, "Condition": {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]}}},
        ),
        (Access(everyone=True), ALL),
    ],
)
def test_what_chalice_imports_into_api_gateway_holds_the_policy(
    tmp_path: Path, chosen: Access, statement: dict[str, Any]
) -> None:
    """An open API has a policy, too: an import without one might leave the last one as it is."""
    render.project(tmp_path, PLACE, render.Options(access=chosen))
    policy = swagger(tmp_path, "blue")["x-amazon-apigateway-policy"]
    assert policy == {"Version": "2012-10-17", "Statement": [statement]}


def test_a_second_rendering_changes_the_policy(tmp_path: Path) -> None:
    for chosen in (Access(networks=("203.0.113.0/24",)), Access(everyone=True)):
        render.project(tmp_path, PLACE, render.Options(access=chosen))
        written = json.loads((tmp_path / ".chalice" / render.ACCESS_FILE).read_text())
        assert written == access.resource_policy(chosen)


def test_the_local_system_has_no_policy(tmp_path: Path) -> None:
    render.project(tmp_path, PLACE, render.Options())
    assert "x-amazon-apigateway-policy" not in swagger(tmp_path, "blue")
    assert not (tmp_path / ".chalice" / render.ACCESS_FILE).exists()


def test_chalice_deploy_in_the_tree_is_closed_until_the_committed_file_says_otherwise() -> None:
    chalice = render.ROOT / ".chalice"
    assert json.loads((chalice / "config.json").read_text())["api_gateway_policy_file"] == render.ACCESS_FILE
    closed = access.resource_policy(Access(networks=("127.0.0.1/32",)))
    assert json.loads((chalice / render.ACCESS_FILE).read_text()) == closed
