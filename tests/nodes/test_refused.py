"""Refused serials: from the operator's list through the meta table to the bridges and the control plane."""

from pathlib import Path

import pytest

from moorage import certificates
from moorage.certificates import CertificateTrouble
from tests.harness import System
from tests.nodes.bridges import Authority, statuses


def test_without_a_list_nobody_is_refused(authority: Authority) -> None:
    reply = authority.bridge("n1").beat()
    assert (reply.status, reply.json["Refused"]) == (200, [])


def test_a_published_list_goes_to_every_bridge_with_the_next_heartbeat(authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    certificates.refuse(authority.worker, "AB:CD")
    certificates.refuse(authority.worker, "0x0f")
    assert bridge.beat().json["Refused"] == []
    authority.publish()
    assert bridge.beat().json["Refused"] == ["abcd", "f"]


def test_a_bridge_with_a_refused_serial_is_refused_and_told_what_to_do(empty: System, authority: Authority) -> None:
    bridge, other = authority.bridge("n1"), authority.bridge("n2")
    bridge.beat()
    certificates.refuse(authority.worker, bridge.serial)
    authority.publish()
    for reply in (bridge.beat(), bridge.leave()):
        assert reply.status == 403
        assert "on the list of refused serials: issue another with `moorage certs bridge`" in reply.body
    assert other.beat().status == 200
    assert statuses(empty) == {"n1": "ready", "n2": "ready"}


def test_a_new_certificate_for_the_same_key_is_taken_again(authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    certificates.refuse(authority.worker, bridge.serial)
    authority.publish()
    assert bridge.beat().status == 403
    renewed = authority.bridge("n1")
    assert renewed.beat().status == 200


def test_publishing_without_a_list_keeps_the_one_that_is_published(authority: Authority) -> None:
    """A renewal from a machine that has no list must let nobody in again; an empty list is meant."""
    certificates.refuse(authority.worker, "abcd")
    authority.publish()
    (authority.worker / certificates.REFUSED_FILE).unlink()
    certificates.issue_worker(authority.ca, authority.worker, days=30, now=authority.now())
    authority.publish()
    bridge = authority.bridge("n1")
    assert bridge.beat().json["Refused"] == ["abcd"]
    (authority.worker / certificates.REFUSED_FILE).write_text("# none any more\n")
    authority.publish()
    assert bridge.beat().json["Refused"] == []


def test_a_refused_worker_certificate_is_not_published(empty: System, authority: Authority, tmp_path: Path) -> None:
    before = empty.deps.namespaces.worker_identity()
    certificates.issue_worker(authority.ca, authority.worker, days=30, now=authority.now())
    certificates.refuse(authority.worker, certificates.Certificate.read(authority.worker / "worker.pem").serial)
    with pytest.raises(CertificateTrouble, match=r"refused\.txt refuses: issue another"):
        authority.publish()
    assert empty.deps.namespaces.worker_identity() == before


def test_before_anything_is_published_a_bridge_is_told_so(empty: System, authority: Authority) -> None:
    empty.deps.dynamo.client.delete_item(
        TableName=empty.deps.dynamo.table("meta"), Key={"pk": {"S": "worker"}, "sk": {"S": "tls"}}
    )
    reply = authority.bridge("n1").beat()
    assert (reply.status, "moorage certs publish-worker" in reply.body) == (403, True)
