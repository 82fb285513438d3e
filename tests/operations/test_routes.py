"""Operations over HTTP: asynchronous answers, reading, listing, resuming, cancelling."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from chalicelib.domain.operation import Kind, Status
from chalicelib.errors import PluginInDoubt, PluginRejected, StoreUnavailable
from tests.harness import Reply, System, definition
from tests.operations.invariants import all_operations, violations
from tests.operations.kinds import CASES, CLAIM_CASES, Case

ASYNC = {"Prefer": "respond-async"}


def start(system: System, volume_id: str = "data", **fields: Any) -> str:
    """Create a volume without waiting, and with no worker at hand; the operation's ID."""
    reply = system.call("PUT", f"/v1/volume/csi/{volume_id}/create", definition(volume_id, **fields), headers=ASYNC)
    assert reply.status == 202, reply.body
    location = reply.headers["Location"]
    assert reply.json == {"Operations": [location.removeprefix("/v1/operation/")]}
    return str(reply.json["Operations"][0])


def operation(system: System, operation_id: str, query: str = "") -> Any:
    return system.call("GET", f"/v1/operation/{operation_id}", query=query).json


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_an_asynchronous_request_is_answered_before_the_work_is_done(case: Case, system: System) -> None:
    case.prepare(system)
    call = system.call

    def asynchronous(method: str, path: str, body: Any = None, *, query: str = "", headers: Any = None) -> Reply:
        return call(method, path, body, query=query, headers=ASYNC if method != "GET" else headers)

    system.call = asynchronous  # type: ignore[method-assign]
    reply = case.start(system)
    system.call = call  # type: ignore[method-assign]
    assert reply.status == 202
    assert reply.headers["Preference-Applied"] == "respond-async"
    operation_id = reply.json["Operations"][0]
    assert operation(system, operation_id)["Status"] == "pending"
    done = operation(system, operation_id, "wait=5s")
    assert (done["Status"], done["Kind"], done["Error"]) == ("succeeded", case.name, "")
    assert case.done(system)


def test_a_plain_update_has_nothing_to_wait_for(system: System) -> None:
    system.call("PUT", "/v1/volume/csi/data/create", definition())
    reply = system.call("PUT", "/v1/volume/csi/data/create", definition(), headers=ASYNC)
    assert reply.status == 200


def test_neither_definition_nor_secrets_are_shown(system: System) -> None:
    flags = {"FSType": "ext4", "MountFlags": ["password=hunter"]}
    operation_id = start(system, MountOptions=flags, Secrets={"token": "swordfish"})
    for _ in range(2):
        shown = system.call("GET", f"/v1/operation/{operation_id}").body
        assert "hunter" not in shown
        assert "swordfish" not in shown
        system.pump()
    assert operation(system, operation_id)["Result"]["Index"] > 0


def test_the_list_has_the_newest_first_and_pages_through_all(system: System) -> None:
    ids = []
    for number in range(40):
        system.clock.moment += 1
        ids.append(start(system, f"v{number}"))
    seen: list[str] = []
    token, pages = "", 0
    while True:
        page = system.call("GET", "/v1/operations", query=f"per_page=7&next_token={token}").json
        seen += [o["ID"] for o in page["Operations"]]
        pages += 1
        token = page["NextToken"]
        if not token:
            break
    assert seen == ids[::-1]
    assert pages == 6


def test_the_list_is_narrowed_by_status_volume_plugin_and_namespace(system: System) -> None:
    system.add_plugin("other")
    first = start(system, "one")
    system.pump()
    second = start(system, "two", PluginID="other")

    def listed(query: str) -> list[str]:
        return [o["ID"] for o in system.call("GET", "/v1/operations", query=query).json["Operations"]]

    assert listed("status=succeeded") == [first]
    assert listed("status=pending") == [second]
    assert listed("volume_id=one") == [first]
    assert listed("plugin_id=other") == [second]
    assert listed("namespace=nowhere") == []
    refused = system.call("GET", "/v1/operations", query="status=done")
    assert (refused.status, refused.body) == (
        400, "status must be one of: pending, running, succeeded, failed, in doubt",
    )  # fmt: skip


def test_a_page_of_many_costs_what_is_shown(system: System) -> None:
    for number in range(60):
        start(system, f"v{number}")
    reply = system.call("GET", "/v1/operations", query="per_page=5")
    assert len(reply.json["Operations"]) == 5


def test_what_is_not_there_is_not_found(system: System) -> None:
    for method, path in (("GET", "nowhere"), ("PUT", "nowhere/resume"), ("DELETE", "nowhere")):
        reply = system.call(method, f"/v1/operation/{path}")
        assert (reply.status, reply.body) == (404, "operation nowhere not found: finished ones are kept for a week")
    assert system.call("POST", "/v1/operation/nowhere").status == 405
    assert system.call("GET", "/v1/operation/nowhere/more").status == 404


@pytest.mark.parametrize("case", CLAIM_CASES, ids=lambda c: c.name)
def test_an_operation_about_a_claim_ends_with_the_claim(case: Case, system: System) -> None:
    case.prepare(system)
    system.pumping = False
    assert case.start(system).status == 504
    operation_id = next(o.id for o in all_operations(system) if o.open)
    refused = system.call("DELETE", f"/v1/operation/{operation_id}")
    assert (refused.status, "release the claim instead" in refused.body) == (409, True)
    system.pumping = True
    system.call("DELETE", "/v1/volume/csi/data/claim/a")
    system.rest(3)
    assert violations(system) == []
    assert system.call("GET", "/v1/volume/csi/data/claims").json == []


@pytest.mark.parametrize("case", [c for c in CASES if c not in CLAIM_CASES], ids=lambda c: c.name)
def test_a_cancelled_operation_frees_what_it_held(case: Case, system: System) -> None:
    case.prepare(system)
    before = (dict(system.provider.volumes), dict(system.provider.snapshots))
    system.pumping = False
    reply = case.start(system)
    assert reply.status == 504
    operation_id = next(o.id for o in all_operations(system) if o.open)
    cancelled = system.call("DELETE", f"/v1/operation/{operation_id}")
    assert (cancelled.status, cancelled.json["Status"]) == (200, "failed")
    assert cancelled.json["Error"] == "cancelled before a worker began"
    system.pumping = True
    system.rest(3)
    assert violations(system) == []
    assert (system.provider.volumes, system.provider.snapshots) == before
    assert case.start(system).status == 200
    assert case.done(system)


def test_what_was_begun_cannot_be_cancelled(system: System) -> None:
    def fail(*_: object) -> None:
        raise PluginInDoubt("no answer", code="UNAVAILABLE")

    system.provider.before.append(fail)
    operation_id = start(system)
    system.pump()
    refused = system.call("DELETE", f"/v1/operation/{operation_id}")
    assert refused.status == 409
    assert "was begun" in refused.body
    system.provider.before.clear()
    system.rest()
    assert operation(system, operation_id)["Status"] == "succeeded"


def test_one_in_doubt_is_kept_says_why_and_can_be_resumed(system: System) -> None:
    def fail(*_: object) -> None:
        raise PluginInDoubt("the array is on fire", code="UNAVAILABLE")

    system.provider.before.append(fail)
    operation_id = start(system)
    refused = system.call("PUT", f"/v1/operation/{operation_id}/resume")
    assert refused.status == 409
    for _ in range(60):
        system.clock.moment += 1000
        system.sweep()
        system.pump()
    shown = operation(system, operation_id)
    head = "controller create volume: CSI.ControllerCreateVolume: "
    text = f"{head}rpc error: code = Unavailable desc = the array is on fire"
    assert (shown["Status"], shown["LastError"], shown["Tries"]) == ("in doubt", text, 30)
    assert shown["StorageName"].startswith("data-")
    assert system.queue.messages == []

    system.provider.before.clear()
    resumed = system.call("PUT", f"/v1/operation/{operation_id}/resume")
    assert (resumed.status, resumed.json["Status"]) == (200, "pending")
    system.pump()
    assert operation(system, operation_id)["Status"] == "succeeded"
    assert violations(system) == []


def serialized(system: System, serialize: str) -> None:
    system.add_plugin("directory", serialize=serialize)


def in_flight(system: System) -> tuple[dict[str, int], list[str]]:
    """Run others inside each call, and count how many calls are in flight at once."""
    most = {"now": 0, "most": 0}
    order: list[str] = []

    def enter(rpc: str, _: object) -> None:
        most["now"] += 1
        most["most"] = max(most["most"], most["now"])
        order.append(rpc)
        system.pump()

    def leave(*_: object) -> None:
        most["now"] -= 1

    system.provider.before.append(enter)
    system.provider.after.append(leave)
    return most, order


@pytest.mark.parametrize(("serialize", "most"), [("", 3), ("plugin", 1)])
def test_a_plugin_that_asks_for_it_gets_one_call_at_a_time(system: System, serialize: str, most: int) -> None:
    serialized(system, serialize)
    counted, _ = in_flight(system)
    ids = [start(system, f"v{n}") for n in range(3)]
    for _ in range(20):
        system.pump()
        system.clock.moment += 1
        system.sweep()
    assert [operation(system, i)["Status"] for i in ids] == ["succeeded"] * 3
    assert counted["most"] == most
    assert violations(system) == []


def test_a_turn_that_a_dead_worker_held_is_over_with_its_lease(system: System) -> None:
    serialized(system, "plugin")
    died: list[str] = []

    class Gone(BaseException):
        pass

    def die(*_: object) -> None:
        if not died:
            died.append("x")
            raise Gone

    system.provider.before.append(die)
    ids = [start(system, f"v{n}") for n in range(3)]
    with pytest.raises(Gone):
        system.pump()
    system.pump()
    assert [operation(system, i)["Status"] for i in ids[1:]] == ["pending", "pending"]
    assert system.queue.messages == []
    assert system.sweep().sent == 0, "nothing is due while the lease lives: no busy polling"
    system.rest()
    assert [operation(system, i)["Status"] for i in ids] == ["succeeded"] * 3


def test_two_snapshots_of_one_volume_and_its_expansion_are_one_call_at_a_time(system: System) -> None:
    system.call("PUT", "/v1/volume/csi/data/create", definition(RequestedCapacityMin=1024))
    counted, order = in_flight(system)
    for name in ("one", "two"):
        body = {"Snapshots": [{"SourceVolumeID": "data", "Name": name}]}
        assert system.call("PUT", "/v1/volumes/snapshot", body, headers=ASYNC).status == 202
    expand = definition(RequestedCapacityMin=4096)
    assert system.call("PUT", "/v1/volume/csi/data/create", expand, headers=ASYNC).status == 202
    for _ in range(20):
        system.pump()
        system.clock.moment += 1
        system.sweep()
    assert sorted(order) == ["ControllerExpandVolume", "CreateSnapshot", "CreateSnapshot"]
    assert counted["most"] == 1
    assert {o.status for o in all_operations(system)} == {Status.SUCCEEDED}


def test_a_rejection_frees_the_turn(system: System) -> None:
    serialized(system, "plugin")

    def reject(rpc: str, provider: Any) -> None:
        raise PluginRejected("no", code="INVALID_ARGUMENT")

    system.provider.before.append(reject)
    first, second = start(system, "a"), start(system, "b")
    system.pump()
    assert [operation(system, i)["Status"] for i in (first, second)] == ["failed", "failed"]


def test_who_waited_for_a_turn_is_worked_on_by_the_worker_that_frees_it(system: System) -> None:
    serialized(system, "plugin")
    counted, order = in_flight(system)
    ids = [start(system, f"v{n}") for n in range(3)]
    system.pump()
    assert [operation(system, i)["Status"] for i in ids] == ["succeeded"] * 3, "no sweep was needed"
    assert (counted["most"], len(order)) == (1, 3)
    assert system.queue.messages == []


def test_a_worker_begins_no_call_that_it_may_not_live_to_see_the_end_of(system: System) -> None:
    serialized(system, "plugin")
    first, second = start(system, "a"), start(system, "b")

    def slow(rpc: str, _: object) -> None:
        if rpc == "CreateVolume" and not system.provider.volumes:
            system.pump()  # the other one finds the turn taken
            system.clock.moment += 200

    system.provider.before.append(slow)
    system.pump()
    assert [operation(system, i)["Status"] for i in (first, second)] == ["succeeded", "pending"]
    assert system.sweep().sent == 1
    system.pump()
    assert operation(system, second)["Status"] == "succeeded"


def test_the_steps_of_one_operation_go_on_elsewhere_when_the_time_is_short(system: System) -> None:
    case = CLAIM_CASES[0]
    case.prepare(system)

    def slow(rpc: str, _: object) -> None:
        system.clock.moment += 50 if rpc == "ControllerPublishVolume" else 230 if rpc == "NodeStageVolume" else 0

    system.provider.before.append(slow)
    assert case.start(system).status in (200, 504)
    (found,) = (o for o in all_operations(system) if o.kind.value == "publish")
    assert (found.status, found.step) == (Status.PENDING, "mount")
    system.rest(2)
    assert case.done(system)


def test_an_attempt_that_learns_nothing_of_its_secrets_says_so(system: System) -> None:
    def refuse(*_: object) -> dict[str, str]:
        raise StoreUnavailable("the key service does not open the stored secrets")

    operation_id = start(system, Secrets={"token": "x"})
    working, system.context = system.context, replace(system.context, secrets=Refusing(refuse))
    system.pump()
    shown = operation(system, operation_id)
    assert (shown["Status"], shown["LastError"]) == ("pending", "the key service does not open the stored secrets")
    assert shown["NotBefore"] < system.clock.now_ns() + 2e9, "no call was made: nothing can land"
    assert system.provider.log == []
    system.context = working
    system.rest(2)
    assert operation(system, operation_id)["Status"] == "succeeded"


@dataclass
class Refusing:
    """Opens nothing."""

    open_secrets: Callable[..., dict[str, str]]


def test_an_operation_whose_claim_is_gone_frees_the_turn_at_once(system: System) -> None:
    CLAIM_CASES[0].prepare(system)
    system.pumping = False
    assert CLAIM_CASES[0].start(system).status == 504
    system.pumping = True
    began = system.clock.now()
    assert CLAIM_CASES[1].start(system).status == 200
    assert system.clock.now() - began < 15
    assert CLAIM_CASES[1].done(system)


def stuck(system: System, rpc: str, code: str = "INTERNAL") -> None:
    def fail(called: str, _: object) -> None:
        if called == rpc:
            raise PluginRejected("stuck", code=code)

    system.provider.before.append(fail)


def deleting(system: System, headers: Any = None) -> Reply:
    return system.call("DELETE", "/v1/volume/csi/data/delete", headers=headers)


def backing_off(system: System) -> str:
    """A delete that its provider refuses, far into its delays; the operation's ID."""
    system.call("PUT", "/v1/volume/csi/data/create", definition(Secrets={"token": "first"}))
    stuck(system, "DeleteVolume")
    assert deleting(system, headers={"X-Nomad-CSI-Secrets": "pass=wrong"}).status == 504
    system.rest(4)
    (found,) = system.call("GET", "/v1/operations", query="status=pending").json["Operations"]
    assert found["NotBefore"] > system.clock.now_ns() + 20e9
    assert found["Tries"] < 30
    return str(found["ID"])


def test_a_request_that_is_sent_again_does_not_wait_for_the_next_try(system: System) -> None:
    backing_off(system)
    system.provider.before.clear()
    began = system.clock.now()
    assert deleting(system).status == 200
    assert system.clock.now() - began < 1.0
    assert system.provider.volumes == {}


def test_what_waits_between_two_tries_can_be_resumed(system: System) -> None:
    operation_id = backing_off(system)
    resumed = system.call("PUT", f"/v1/operation/{operation_id}/resume")
    assert (resumed.status, resumed.json["Status"], resumed.json["NotBefore"]) == (200, "pending", 0)
    system.provider.before.clear()
    system.pump()
    assert operation(system, operation_id)["Status"] == "succeeded"


def test_the_secrets_of_the_last_request_are_used(system: System) -> None:
    backing_off(system)
    assert system.provider.secrets[-1] == {"token": "first", "pass": "wrong"}
    deleting(system, headers={"X-Nomad-CSI-Secrets": "pass=right"})
    assert system.provider.secrets[-1] == {"token": "first", "pass": "right"}
    deleting(system)
    assert system.provider.secrets[-1] == {"token": "first", "pass": "right"}, "none given: those there were"


def test_a_delay_that_protects_from_an_older_call_is_not_cut_short(system: System) -> None:
    lost: list[str] = []

    def answer_late(called: str, _: object) -> None:
        if called == "DeleteVolume" and not lost:
            lost.append(called)
            raise PluginInDoubt("no answer", code="DEADLINE_EXCEEDED")

    system.call("PUT", "/v1/volume/csi/data/create", definition())
    system.provider.before.append(answer_late)
    stuck(system, "DeleteVolume", code="FAILED_PRECONDITION")
    first = deleting(system)
    assert first.status == 504
    (found,) = (o for o in all_operations(system) if o.kind is Kind.DELETE_VOLUME)
    assert found.in_flight(system.clock.now())
    before = len(system.provider.log)
    for _ in range(3):
        assert deleting(system, headers={"Prefer": "wait=1"}).status == 504
    assert len(system.provider.log) == before, "a refusal counts only when the first call cannot land any more"


@pytest.mark.parametrize(
    ("prefer", "seconds", "status"),
    [
        ("wait=5", 5.0, 504),
        ("wait=600", 25.0, 504),
        ("wait=0", 0.0, 504),
        ("respond-async", 0.0, 202),
        ("respond-async, wait=3", 3.0, 202),
        ("wait=soon", 25.0, 504),
        ("handling=lenient; foo=bar", 25.0, 504),
    ],
)
def test_a_client_is_kept_waiting_as_long_as_it_wants_to(
    system: System, prefer: str, seconds: float, status: int
) -> None:
    system.pumping = False
    began = system.clock.now()
    reply = system.call("PUT", "/v1/volume/csi/data/create", definition(), headers={"Prefer": prefer})
    assert reply.status == status
    assert seconds - 1 <= system.clock.now() - began <= seconds


def index_of(reply: Reply) -> int:
    return int(reply.headers["X-Nomad-Index"])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_who_blocks_on_operations_is_woken_by_each_of_their_changes(case: Case, system: System) -> None:
    case.prepare(system)
    seen = system.call("GET", "/v1/operations")
    shown: list[tuple[str, str]] = []

    def look(*_: object) -> None:
        nonlocal seen
        now = system.call("GET", "/v1/operations")
        if now.json != seen.json:
            assert index_of(now) > index_of(seen), "a change that wakes nobody"
            shown.extend((o["Kind"], o["Status"]) for o in now.json["Operations"][:1])
        seen = now

    system.clock.on_sleep.insert(0, look)
    system.provider.before.append(look)
    case.start(system)
    look()
    assert (case.name, "running") in shown
    assert (case.name, "succeeded") in shown


def test_blocked_readers_of_operations_wait_and_are_woken(system: System) -> None:
    first = system.call("GET", "/v1/operations")
    began = system.clock.now()
    waited = system.call("GET", "/v1/operations", query=f"index={index_of(first)}&wait=3s")
    assert index_of(waited) == index_of(first)
    assert system.clock.now() - began == pytest.approx(3, abs=0.2)

    operation_id = start(system)
    one = system.call("GET", f"/v1/operation/{operation_id}")
    began = system.clock.now()
    woken = system.call("GET", f"/v1/operation/{operation_id}", query=f"index={index_of(one)}&wait=20s")
    assert system.clock.now() - began < 1.0, "the worker took it meanwhile"
    assert woken.json["Status"] != "pending"
    assert index_of(woken) > index_of(one)
