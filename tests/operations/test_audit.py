"""Audits of the real directory plugin: what it has against what is registered, while other things happen, in pages."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chalicelib import functions, wiring
from chalicelib.domain.audit import Finding, StorageKind, Verdict
from chalicelib.domain.call import CallOptions
from chalicelib.domain.deadlines import AUDIT_TIMEOUT
from chalicelib.domain.volume import Capability, Definition, Volume
from chalicelib.errors import PluginInDoubt, PluginUnreachable, StoreUnavailable
from chalicelib.plugin_queries.client import PluginQueries
from chalicelib.service import audit
from chalicelib.store.audits import PART, AuditStatus, AuditStore, Report
from chalicelib.store.waits import WaitStore
from tests import harness, plugin
from tests.emulated import aws
from tests.harness import Reply, System, definition

CAPABILITIES = harness.CAPABILITIES | {"LIST_SNAPSHOTS"}
CAPABILITY = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[System]:
    """The control plane with the directory plugin behind it."""
    with aws() as place, plugin.running(tmp_path) as socket:
        system = harness.make_system(monkeypatch, place)
        channels = plugin.SocketChannels(socket, system.clock.monotonic)
        system.use(plugin.calls(system.deps.plugins, channels, system.clock))
        system.add_plugin(controller_capabilities=CAPABILITIES)
        yield system
        channels.close()
        harness.forget()


def create(system: System, volume_id: str) -> str:
    """Create a volume; the ID that the plugin gave it."""
    reply = system.call("PUT", f"/v1/volume/csi/{volume_id}/create", definition(volume_id))
    assert reply.status == 200, reply.body
    return str(reply.json["Volumes"][0]["ExternalID"])


def make_past_us(system: System, name: str) -> str:
    """Create a volume at the plugin past the control plane, as others may, and return its ID."""
    volume = Volume(
        "", name, "directory", definition=Definition(capabilities=(Capability("single-node-writer", "file-system"),))
    )
    return system.context.calls.create_volume(volume, name=name, call=soon(system)).external_id


def remove_past_us(system: System, external_id: str) -> None:
    system.context.calls.delete_volume("directory", external_id, call=soon(system))


def soon(system: System) -> CallOptions:
    return CallOptions(system.clock.monotonic() + 10)


def forget_all(system: System) -> None:
    """The tables as they are after a crash of an emulator that saved nothing: no volume, no operation."""
    client = system.deps.dynamo.client
    for name in ("volumes", "operations"):
        for item in client.scan(TableName=f"moorage-test-{name}")["Items"]:
            client.delete_item(TableName=f"moorage-test-{name}", Key={"pk": item["pk"], "sk": item["sk"]})


def audited(system: System) -> dict[str, Any]:
    """What the last report says after an audit: PUT, the function, GET."""
    started = system.call("PUT", "/v1/audit/directory")
    assert (started.status, started.json["Status"]) == (202, "running")
    queries: Any = system.deps.plugin_queries
    assert queries.audits.pop() == ("directory", started.json["ID"])
    audit.run(system.deps, "directory", started.json["ID"])
    read = system.call("GET", "/v1/audit/directory", query="wait=1s")
    assert read.json["ID"] == started.json["ID"]
    return dict(read.json)


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    assert report["Status"] == "done", report["Error"]
    return {f["ExternalID"]: f["Verdict"] for f in report["Findings"]}


def everything(system: System) -> list[Any]:
    """All items but those of audits."""
    scan = system.deps.dynamo.client.scan
    tables = ("volumes", "operations", "plugins", "meta")
    items = [i for name in tables for i in scan(TableName=f"moorage-test-{name}")["Items"]]
    return [i for i in items if not i["pk"]["S"].startswith("audit#")]


def test_nothing_is_found_where_nothing_is_wrong(real: System) -> None:
    for number in range(3):
        create(real, f"data-{number}")
    body = {"Snapshots": [{"SourceVolumeID": "data-0", "Name": "nightly"}]}
    assert real.call("PUT", "/v1/volumes/snapshot", body).status == 200
    before = everything(real)
    report = audited(real)
    assert report["Counts"] == {"volume registered": 3, "snapshot registered": 1}
    assert (report["Findings"], report["NextToken"], report["Error"]) == ([], "", "")
    assert everything(real) == before


def test_what_the_tables_forgot_is_an_orphan_and_can_be_adopted(real: System) -> None:
    external_id = create(real, "a-volume-with-a-name-of-more-than-forty-letters")
    forget_all(real)
    assert verdicts(audited(real)) == {external_id: "orphan"}
    known = {"ID": "again", "PluginID": "directory", "ExternalID": external_id, "RequestedCapabilities": [CAPABILITY]}
    assert real.call("PUT", "/v1/volume/csi/again", {"Volumes": [known]}).status == 200
    assert verdicts(audited(real)) == {}


def test_a_deregistered_volume_is_an_orphan_with_its_history(real: System) -> None:
    external_id = create(real, "data")
    assert real.call("DELETE", "/v1/volume/csi/data").status == 200
    report = audited(real)
    assert verdicts(report) == {external_id: "orphan"}
    found = report["Findings"][0]
    assert (found["Namespace"], found["VolumeID"], found["Detail"]) == ("default", "data", "create succeeded")
    assert real.call("GET", f"/v1/operation/{found['OperationID']}").json["Kind"] == "create"


def test_a_record_without_storage_is_missing(real: System) -> None:
    external_id = create(real, "data")
    remove_past_us(real, external_id)
    report = audited(real)
    assert verdicts(report) == {external_id: "missing"}
    assert report["Findings"][0]["VolumeID"] == "data"


def test_what_others_made_is_never_called_ours(real: System) -> None:
    names = ["pvc-2f9a8d6e-3b1c-4e5f-8a7b-6c5d4e3f2a1b", "data", "backup-abcdefghijklmnopqrstuv"]
    made = [make_past_us(real, name) for name in names]
    report = audited(real)
    assert verdicts(report) == dict.fromkeys(made, "unknown")
    assert report["Counts"] == {"volume unknown": 3}


def test_an_open_operation_holds_what_it_may_have_made(real: System) -> None:
    real.pumping = False
    assert real.call("PUT", "/v1/volume/csi/data/create", definition()).status == 504
    operation = real.call("GET", "/v1/operations").json["Operations"][0]
    external_id = make_past_us(real, operation["StorageName"])
    report = audited(real)
    assert verdicts(report) == {external_id: "held"}
    assert report["Findings"][0]["OperationID"] == operation["ID"]


def test_a_snapshot_outlives_its_volume(real: System) -> None:
    create(real, "data")
    body = {"Snapshots": [{"SourceVolumeID": "data", "Name": "last"}]}
    taken = real.call("PUT", "/v1/volumes/snapshot", body).json["Snapshots"][0]["ID"]
    assert real.call("DELETE", "/v1/volume/csi/data/delete").status == 200
    assert verdicts(audited(real)) == {taken: "kept"}
    forget_all(real)
    assert verdicts(audited(real)) == {taken: "unknown"}


class Meddling(PluginQueries):
    """Lets something happen after the n-th query."""

    def __init__(self, system: System, at: int, what: Callable[[], object]) -> None:
        self._queries = system.deps.plugin_queries
        self._at, self._what, self.asked = at, what, 0

    def send(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._queries.send(event)
        self.asked += 1
        if self.asked == self._at:
            self._what()
        return answer

    def start_audit(self, plugin_id: str, run: str) -> None:
        raise AssertionError("nobody starts one here")


def with_queries(system: System, queries: Meddling) -> Meddling:
    object.__setattr__(system.deps, "plugin_queries", queries)
    return queries


@pytest.mark.parametrize("action", ["create", "delete"])
@pytest.mark.parametrize("at", [1, 2])
def test_what_comes_and_goes_meanwhile_is_not_wrong(real: System, action: str, at: int) -> None:
    """Created after the provider's list was read it looks missing; deleted then, it looks like an orphan. Once."""
    create(real, "data")
    acts: dict[str, Callable[[], object]] = {
        "create": lambda: create(real, "new"),
        "delete": lambda: real.call("DELETE", "/v1/volume/csi/data/delete"),
    }
    meddling = with_queries(real, Meddling(real, at, acts[action]))
    report = audit.run(real.deps, "directory", real.clock.new_id())
    assert meddling.asked == 4, "the second look was to tell"
    assert report.status is AuditStatus.DONE
    assert not any(name.endswith(("missing", "orphan")) and n for name, n in report.counts.items())
    assert AuditStore(real.deps.dynamo).part(report, 0) == []


def test_the_providers_list_is_read_in_pages(real: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PER_PAGE", 2)
    for number in range(7):
        create(real, f"data-{number}")
    meddling = with_queries(real, Meddling(real, 0, lambda: None))
    report = audit.run(real.deps, "directory", real.clock.new_id())
    assert report.counts == {"volume registered": 7}
    assert meddling.asked == 4 + 1, "four pages of volumes, one of snapshots"


def entries(*external_ids: str, token: str = "") -> dict[str, Any]:
    return {"entries": [{"external_id": e, "context": {}} for e in external_ids], "next_token": token}


def test_findings_are_read_in_pages_too(system: System) -> None:
    names = [f"vol-{n:05d}" for n in range(2 * PART + 1)]
    system.plugin_queries.answers["list_volumes"] = lambda **_: entries(*names)
    run = system.call("PUT", "/v1/audit/directory").json["ID"]
    audit.run(system.deps, "directory", run)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = system.call("GET", "/v1/audit/directory", query=f"next_token={token}").json
        seen += [f["ExternalID"] for f in page["Findings"]]
        token, pages = page["NextToken"], pages + 1
    assert (seen, pages) == (names, 3)
    audit.run(system.deps, "directory", system.clock.new_id())
    stale = system.call("GET", "/v1/audit/directory", query=f"next_token={run}.1")
    assert (stale.status, "from its beginning" in stale.body) == (404, True)


def test_a_list_without_end_is_a_failure_that_says_so(system: System) -> None:
    system.plugin_queries.answers["list_volumes"] = lambda **_: entries("vol-1", token="again")
    report = audit.run(system.deps, "directory", "r")
    assert report.status is AuditStatus.FAILED
    assert "its list has no end" in report.error
    assert system.call("GET", "/v1/audit/directory").json["Error"] == report.error


@pytest.mark.parametrize(("failures", "status"), [(3, AuditStatus.DONE), (4, AuditStatus.FAILED)])
def test_a_plugin_that_is_away_for_a_moment_is_asked_again(system: System, failures: int, status: AuditStatus) -> None:
    errors: list[Exception] = [
        PluginUnreachable("no healthy controllers", code="UNAVAILABLE"),
        PluginInDoubt("rpc error: unavailable", code="UNAVAILABLE"),
    ] * 2

    def answer(**_: Any) -> dict[str, Any]:
        if len(errors) > 4 - failures:
            raise errors.pop()
        return entries()

    system.plugin_queries.answers["list_volumes"] = answer
    assert audit.run(system.deps, "directory", "r").status is status


def test_who_cannot_be_audited_is_told_why(system: System) -> None:
    assert refused(system.call("PUT", "/v1/audit/nobody")) == "no such plugin"
    system.add_plugin("mute", controller_capabilities=frozenset({"CREATE_DELETE_VOLUME"}))
    assert "does not list its volumes" in refused(system.call("PUT", "/v1/audit/mute"))
    system.add_plugin("down", healthy=False)
    assert "no healthy controllers" in refused(system.call("PUT", "/v1/audit/down"))
    never = system.call("GET", "/v1/audit/directory")
    assert (never.status, "PUT /v1/audit/directory" in never.body) == (404, True)
    assert system.call("DELETE", "/v1/audit/directory").status == 405
    assert system.call("GET", "/v1/audit/directory/more").status == 404


def refused(reply: Reply) -> str:
    assert reply.status == 500
    return reply.body


def test_an_audit_that_could_not_be_started_does_not_keep_others_from_it(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("the function that audits cannot be called now")

    with monkeypatch.context() as refusing:
        refusing.setattr(system.plugin_queries, "start_audit", refuse)
        assert system.call("PUT", "/v1/audit/directory").status == 503
    failed = system.call("GET", "/v1/audit/directory").json
    assert (failed["Status"], failed["Error"]) == ("failed", "the function that audits cannot be called now")
    system.clock.moment += 1
    again = system.call("PUT", "/v1/audit/directory").json
    assert again["ID"] > failed["ID"]
    assert system.plugin_queries.audits == [("directory", again["ID"])]


def test_who_waits_for_an_audit_has_a_place_or_does_not_wait(system: System) -> None:
    system.call("PUT", "/v1/audit/directory")
    system.rewire(replace(system.deps, waits=WaitStore(system.deps.dynamo, limit=0)))
    began = system.clock.now()
    assert system.call("GET", "/v1/audit/directory", query="wait=20s").json["Status"] == "running"
    assert system.clock.now() - began < 1


def test_one_audit_at_a_time_until_it_must_be_over(system: System) -> None:
    first = system.call("PUT", "/v1/audit/directory").json["ID"]
    assert system.call("PUT", "/v1/audit/directory").json["ID"] == first
    assert system.plugin_queries.audits == [("directory", first)]
    began = system.clock.now()
    assert system.call("GET", "/v1/audit/directory", query="wait=60s").json["Status"] == "running"
    assert 20 < system.clock.now() - began <= 25
    system.clock.moment += AUDIT_TIMEOUT
    assert system.call("PUT", "/v1/audit/directory").json["ID"] > first


def test_an_older_run_does_not_overwrite_a_newer_ones_report(system: System) -> None:
    audits, now = AuditStore(system.deps.dynamo), system.clock.now()
    old, new = (Report(run, "directory", AuditStatus.DONE, began) for run, began in (("b", now - 1), ("a", now)))
    audits.write(new, now=now)
    finding = Finding(StorageKind.VOLUME, Verdict.ORPHAN, "vol-1")
    audits.write(old, [finding], now=now)
    assert audits.last("directory") == new
    assert audits.part(new, 0) == []


def test_every_plugin_that_lists_is_audited_once_a_day(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    system.add_plugin("second")
    system.add_plugin("mute", controller_capabilities=frozenset())
    name = f"data-{system.clock.new_id()}"
    system.plugin_queries.answers["list_volumes"] = lambda plugin_id, **_: entries(
        name if plugin_id == "second" else "vol-1"
    )
    functions.audit_volumes({**_scheduled(), "detail": {}}, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    findings = [(n["plugin_id"], n["verdict"], n["external_id"]) for n in lines if n["event"] == "audit finding"]
    assert findings == [("second", "orphan", name)]
    sums = {n["plugin_id"]: (n["outcome"], n.get("volume_orphan")) for n in lines if n["event"] == "audit"}
    assert sums == {"directory": ("done", None), "second": ("done", 1)}


def _scheduled() -> dict[str, Any]:
    names = ("version", "account", "region", "source", "time", "id", "detail-type")
    return {**dict.fromkeys(names, ""), "resources": []}


class FakeLambda:
    """The function that audits, called in this process."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> None:  # noqa: N803 - AWS's names
        assert InvocationType == "Event"
        self.called.append(FunctionName)
        functions.audit_volumes(json.loads(Payload), None)


def test_the_function_understands_what_the_api_sends(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.plugin_queries.answers["list_volumes"] = lambda **_: entries("vol-1")
    client = FakeLambda()
    names = ("moorage-test-ask_plugin", wiring.settings().audit_function)
    clock = system.clock
    queries = PluginQueries(*names, region=harness.REGION, sleep=clock.sleep, jitter=clock.jitter)
    monkeypatch.setattr(queries, "_client", client)
    queries.start_audit("directory", "r")
    assert client.called == ["moorage-test-audit_volumes"]
    report = AuditStore(system.deps.dynamo).last("directory")
    assert report is not None
    assert (report.run, report.status, report.counts) == ("r", AuditStatus.DONE, {"volume unknown": 1})
