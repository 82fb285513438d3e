"""moorage mount, umount, ls and reconcile: what they ask for, leave behind, print, and answer as exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from infra.bridge.tests.mount_parts import BUSY, PENDING, Machine, Played, played
from moorage.cli import main
from moorage.mounts.journal import Stage

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Played]:
    with played(tmp_path / "storage") as found:
        yield found


@pytest.fixture
def machine(tmp_path: Path, plane: Played) -> Machine:
    return Machine.make(tmp_path, plane)


def test_a_mount_prints_its_path_and_claims_with_paths_of_this_node(machine: Machine, plane: Played) -> None:
    done = machine.mount()
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{machine.target}\n", "")
    (body,) = plane.requests("PUT claim")
    allocation, staging = body.pop("AllocationID"), body.pop("StagingPath")
    assert body == {
        "NodeID": "n1", "Mode": "write", "AccessMode": "", "AttachmentMode": "", "LeaseSeconds": 120,
        "Name": f"mount {machine.target}", "TargetPath": str(machine.target),
    }  # fmt: skip
    assert Path(staging).is_dir()
    entry = machine.entry()
    assert (entry.stage, entry.allocation, entry.external_id) == (Stage.MOUNTED, allocation, "ext-data")
    assert (entry.access_mode, entry.shows) == ("single-node-writer", f"link {plane.data / 'data'}")


def test_mounting_it_again_changes_nothing(machine: Machine, plane: Played) -> None:
    assert machine.mount("--alloc", "a1").exit_code == 0
    again = machine.mount()
    assert (again.exit_code, again.stdout) == (0, f"{machine.target}\n")
    assert len(plane.requests("PUT claim")) == 1
    other = machine.run("mount", "other", machine.target)
    assert (other.exit_code, "has volume default/data to write for allocation a1" in other.stderr) == (1, True)
    assert machine.mount("--read-only").exit_code == 1
    assert machine.run("mount", "data", machine.root / "second", "--alloc", "a1").exit_code == 1


def test_the_options_reach_the_claim(machine: Machine, plane: Played) -> None:
    options = ["--read-only", "--alloc", "a1", "--lease", "0", "--access-mode", "m", "--attachment-mode", "t"]
    done = machine.mount(*options, "--json")
    assert done.exit_code == 0, done.stderr
    (body,) = plane.requests("PUT claim")
    assert {key: body[key] for key in ("AllocationID", "Mode", "AccessMode", "AttachmentMode", "LeaseSeconds")} == {
        "AllocationID": "a1", "Mode": "read", "AccessMode": "m", "AttachmentMode": "t", "LeaseSeconds": 0,
    }  # fmt: skip
    assert not plane.requests("PUT renew")
    said = json.loads(done.stdout)
    assert (said["Target"], said["VolumeID"], said["Stage"]) == (str(machine.target), "data", "mounted")


@pytest.mark.parametrize("by", ["target", "volume", "relative"])
def test_an_unmount_leaves_nothing(machine: Machine, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.mount().exit_code == 0
    monkeypatch.chdir(machine.root)
    done = machine.run("umount", {"target": str(machine.target), "volume": "data", "relative": "data/"}[by])
    assert (done.exit_code, done.output) == (0, "")
    assert machine.is_clean()
    again = machine.run("umount", machine.target)
    assert (again.exit_code, "see moorage ls" in again.stderr) == (1, True)


def test_the_state_folder_may_be_called_as_one_likes(
    machine: Machine, plane: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin is told absolute paths, as it must be (CSI spec, NodeStageVolume), and one for each volume."""
    monkeypatch.chdir(machine.state.parent)
    whole = str(machine.state.resolve() / "staging")
    (machine.state.parent / "linked").symlink_to(machine.state)
    for name, spelling in (("one", "state"), ("two", "./state/../linked"), ("three", str(machine.state))):
        done = machine.run("mount", "data", machine.root / name, "--state", spelling, "--read-only")
        assert done.exit_code == 0, done.output
    asked = [request["StagingPath"] for request in plane.requests("PUT claim")]
    assert len(set(asked)) == 1
    assert asked[0].startswith(f"{whole}/")


def test_an_empty_folder_at_the_target_is_there_again_afterwards(machine: Machine) -> None:
    machine.target.mkdir(mode=0o750)
    assert machine.mount().exit_code == 0
    assert machine.target.is_symlink()
    assert machine.run("umount", "data").exit_code == 0
    assert machine.target.stat().st_mode & 0o777 == 0o750
    assert list(machine.target.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("file", "is a file: move it away"),
        ("full", "is not empty (it has 'precious')"),
        ("link", "mounted or linked at"),
        ("orphan", "does not exist: make it first (mkdir -p"),
        ("root", "is the root directory"),
        ("mount", "something is mounted or linked"),
    ],
)
def test_a_target_with_data_is_refused_before_anything_is_asked(
    machine: Machine, plane: Played, kind: str, says: str
) -> None:
    target = machine.target
    if kind == "file":
        target.write_text("precious")
    elif kind == "full":
        target.mkdir()
        (target / "precious").write_text("data")
    elif kind == "link":
        target.symlink_to(plane.data)
    else:
        target = {"orphan": machine.root / "a" / "b", "root": Path("/"), "mount": Path("/proc")}[kind]
    done = machine.run("mount", "data", target)
    assert done.exit_code == 1
    assert says in done.stderr
    assert (plane.asked, machine.journal.entries()) == ([], [])
    if kind == "full":
        assert (target / "precious").read_text() == "data"


def test_what_is_refused_leaves_nothing(machine: Machine, plane: Played) -> None:
    plane.next["PUT claim"] = [(500, "volume max claims reached")]
    done = machine.mount()
    hint = "unmount it elsewhere first; GET /v1/volume/csi/data/claims?namespace=default says who holds it"
    assert done.exit_code == 1
    assert done.stderr == f"Error: data was not mounted: volume max claims reached: {hint}\n"
    assert len(plane.requests("DELETE claim")) == 1
    assert machine.is_clean()
    gone = machine.run("mount", "missing", machine.target)
    assert (gone.exit_code, "there is no volume missing in namespace default" in gone.stderr) == (1, True)
    assert machine.is_clean()


def test_a_choice_of_modes_names_the_options(machine: Machine, plane: Played) -> None:
    plane.next["PUT claim"] = [(400, "AccessMode and AttachmentMode must be given: the volume has more than one")]
    assert "(--access-mode and --attachment-mode name them)" in machine.mount().stderr


def test_a_plugin_that_shows_nothing_is_told_on_and_released(machine: Machine, plane: Played) -> None:
    plane.publishes = False
    done = machine.mount()
    assert (done.exit_code, "mount propagation" in done.stderr) == (1, True)
    assert machine.is_clean()


def test_what_goes_on_is_waited_for(machine: Machine, plane: Played) -> None:
    plane.next = {"PUT claim": [PENDING, BUSY], "DELETE claim": [PENDING]}
    done = machine.mount()
    assert (done.exit_code, len(plane.requests("PUT claim"))) == (0, 3)
    assert len({body["AllocationID"] for body in plane.requests("PUT claim")}) == 1
    assert machine.run("umount", "data").exit_code == 0
    assert machine.mount("--wait", "2").exit_code == 0
    # A short wait first, so that trouble is shown; none longer than the command may take.
    waits = [headers["Prefer"] for _, name, _, headers in plane.asked if name in ("PUT claim", "DELETE claim")]
    assert waits == ["wait=3", "wait=25", "wait=25", "wait=3", "wait=25", "wait=2"]


def test_what_takes_too_long_is_exit_code_3_and_goes_on_with_the_same_claim(machine: Machine, plane: Played) -> None:
    plane.next["PUT claim"] = [PENDING] * 100
    done = machine.mount("--wait", "1")
    assert (done.exit_code, "repeat the command to go on" in done.stderr) == (3, True)
    assert machine.stages() == {"data": Stage.WANTED}
    plane.next.clear()
    assert machine.mount().exit_code == 0
    assert len({body["AllocationID"] for body in plane.requests("PUT claim")}) == 1
    plane.always = BUSY
    assert machine.run("umount", "data", "--wait", "0.5").exit_code == 3
    assert machine.stages() == {"data": Stage.UNMOUNTING}
    refused = machine.mount("--wait", "0.5")
    assert (refused.exit_code, "is being unmounted: finish that first" in refused.stderr) == (1, True)
    plane.always = None
    assert machine.run("umount", "data").exit_code == 0
    assert machine.is_clean()


def test_progress_is_shown_after_a_second(machine: Machine, plane: Played) -> None:
    plane.delay = 0.7
    done = machine.mount()
    assert done.exit_code == 0
    assert done.stdout == f"{machine.target}\n"
    assert f"1 s: mounting data at {machine.target}" in done.stderr


def test_a_claim_of_the_same_allocation_elsewhere_is_left_alone(machine: Machine, plane: Played) -> None:
    plane.claims["a1"] = {
        "AllocationID": "a1", "VolumeID": "data", "TargetPath": "/elsewhere", "State": "taken", "Published": True,
    }  # fmt: skip
    done = machine.mount("--alloc", "a1", "--wait", "30")
    assert (done.exit_code, "release that claim first" in done.stderr) == (1, True)
    assert not plane.requests("DELETE claim")
    assert machine.journal.entries() == []


def test_a_claim_on_its_way_out_is_waited_for(machine: Machine, plane: Played) -> None:
    assert machine.mount("--alloc", "a1").exit_code == 0
    plane.claims["a1"]["State"] = "unpublishing"
    machine.reboot()
    done = machine.mount()
    assert done.exit_code == 0, done.stderr
    assert len(plane.requests("DELETE claim")) == 1
    assert plane.claims["a1"]["State"] == "taken"


def test_a_404_that_is_not_the_control_planes_does_not_pass_for_a_release(machine: Machine, plane: Played) -> None:
    assert machine.mount().exit_code == 0
    plane.always = (404, "no such page")
    done = machine.run("umount", "data")
    assert (done.exit_code, "was not released: 404: no such page" in done.stderr) == (1, True)
    assert machine.stages() == {"data": Stage.UNMOUNTING}


def test_after_a_reboot_a_reconcile_mounts_again_what_was_mounted(machine: Machine, plane: Played) -> None:
    for name in ("data", "second"):
        assert machine.run("mount", name, machine.root / name).exit_code == 0
    (plane.data / "data" / "file").write_text("kept")
    machine.reboot()
    shown = {
        Path(one["Target"]).name: (one["Shown"], one["OK"]) for one in json.loads(machine.run("ls", "--json").stdout)
    }
    assert shown == {"data": (False, False), "second": (False, False)}
    listed = machine.run("ls")
    assert listed.stdout.count("not there") == 2
    assert "moorage reconcile" in listed.stderr
    done = machine.run("reconcile")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{machine.root / n}: default/{n} mounted" for n in ("data", "second")]
    assert (machine.target / "file").read_text() == "kept"
    assert machine.run("ls").stdout.count("mounted  taken") == 2


def test_data_that_came_to_lie_at_the_target_is_not_covered_by_a_reconcile(machine: Machine, plane: Played) -> None:
    assert machine.mount().exit_code == 0
    machine.reboot()
    machine.target.mkdir()
    (machine.target / "precious").write_text("data")
    done = machine.run("reconcile")
    assert (done.exit_code, "is not empty (it has 'precious')" in done.stdout) == (1, True)
    assert (machine.target / "precious").read_text() == "data"
    assert plane.claims == {}
    assert machine.stages() == {"data": Stage.LOSING}
    (machine.target / "precious").unlink()
    assert machine.run("reconcile", "--json").exit_code == 0
    assert machine.stages() == {"data": Stage.MOUNTED}


def test_a_reconcile_ends_what_was_to_be_unmounted_and_says_what_failed(machine: Machine, plane: Played) -> None:
    for name in ("data", "second"):
        assert machine.run("mount", name, machine.root / name, "--alloc", name).exit_code == 0
    plane.always = BUSY
    assert machine.run("umount", "data", "--wait", "0.3").exit_code == 3
    assert machine.run("reconcile", "--wait", "0.3").exit_code == 3
    plane.always = None
    plane.claims.pop("second")
    plane.next["PUT claim"] = [(500, "volume max claims reached")]
    done = machine.run("reconcile")
    assert done.exit_code == 1
    hint = "unmount it elsewhere first; GET /v1/volume/csi/second/claims?namespace=default says who holds it"
    assert done.stdout.splitlines() == [
        f"{machine.target}: default/data unmounted",
        f"{machine.root / 'second'}: default/second failed: second was not mounted: volume max claims reached: {hint}",
    ]
    assert machine.stages() == {"second": Stage.LOSING}, "what was mounted is still wanted"
    assert "volume max claims reached" in machine.run("ls").stdout


def test_a_volume_at_two_targets_is_staged_once_and_must_be_named_by_target(machine: Machine, plane: Played) -> None:
    targets = [machine.root / "one", machine.root / "two"]
    for target in targets:
        assert machine.run("mount", "data", target).exit_code == 0
    assert len({body["StagingPath"] for body in plane.requests("PUT claim")}) == 1
    ambiguous = machine.run("umount", "data")
    assert (ambiguous.exit_code, str(targets[1]) in ambiguous.stderr) == (1, True)
    assert machine.run("umount", targets[0]).exit_code == 0
    assert len(list((machine.state / "staging").iterdir())) == 1
    assert machine.run("umount", "data").exit_code == 0
    assert machine.is_clean()


def test_two_commands_do_not_work_at_one_target(machine: Machine, plane: Played) -> None:
    assert machine.mount().exit_code == 0
    with machine.journal.try_lock(machine.entry().key) as ours:
        assert ours
        for arguments in (("mount", "data", machine.target), ("umount", "data")):
            done = machine.run(*arguments, "--wait", "0.3")
            assert (done.exit_code, "another moorage is at work" in done.stderr) == (3, True)
    assert machine.stages() == {"data": Stage.MOUNTED}


def test_a_control_plane_that_is_away_is_not_waited_for_beyond_the_lease(machine: Machine, plane: Played) -> None:
    plane.next["PUT claim"] = [BUSY] * 1000
    done = machine.mount("--lease", "5", "--wait", "60")
    assert done.exit_code == 3
    first, *_, last = plane.times("PUT claim")
    assert last - first < 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("mount",),
        ("mount", "data"),
        ("mount", "data", "/mnt/x", "--lease", "1"),
        ("mount", "data", "/mnt/x", "--lease", "soon"),
        ("umount",),
        ("ls", "more"),
    ],
)
def test_wrong_usage_is_exit_code_2(machine: Machine, arguments: tuple[str, ...]) -> None:
    assert machine.run(*arguments).exit_code == 2


def test_without_a_bridge_the_error_says_what_is_missing(machine: Machine, plane: Played) -> None:
    (machine.state / "api").unlink()
    done = machine.mount()
    assert (done.exit_code, "name the state folder of the bridge" in done.stderr) == (1, True)
    assert machine.mount("--api", plane.url).exit_code == 0
    unreachable = machine.run("ls", "--api", "http://127.0.0.1:1")
    assert (unreachable.exit_code, "unknown" in unreachable.stdout) == (0, True)
    plain = machine.run("ls", "--api", "http://example.com")
    assert (plain.exit_code, "plain HTTP is for this machine only" in plain.stderr) == (1, True)
    elsewhere = machine.run("ls", "--state", machine.root / "nowhere")
    assert (elsewhere.exit_code, "is this the bridge's state folder" in elsewhere.stderr) == (1, True)


def test_the_token_of_the_state_folder_is_shown(machine: Machine, plane: Played) -> None:
    (machine.state / "token").write_text("s3cret\n")
    assert machine.mount().exit_code == 0
    assert {headers.get("X-Nomad-Token") for _, _, _, headers in plane.asked} == {"s3cret"}


def test_a_broken_entry_is_named_and_not_thrown_away(machine: Machine) -> None:
    assert machine.mount().exit_code == 0
    (file,) = (machine.state / "mounts").glob("*.json")
    file.write_text("{")
    done = machine.run("ls")
    assert (done.exit_code, str(file) in done.stderr) == (1, True)
    assert file.read_text() == "{"


def test_the_shell_completes_what_is_mounted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.mount().exit_code == 0
    monkeypatch.setenv("MOORAGE_BRIDGE_STATE", str(machine.state))
    completer = BashComplete(main, {}, "moorage", "_MOORAGE_COMPLETE")

    def offered(*words: str, incomplete: str) -> list[str]:
        return [item.value for item in completer.get_completions(list(words), incomplete)]

    assert offered("umount", incomplete="da") == ["data"]
    assert offered("umount", incomplete=str(machine.root)) == [str(machine.target)]
    assert offered(incomplete="um") == ["umount"]
    assert "_MOORAGE_COMPLETE=bash_complete" in completer.source()
