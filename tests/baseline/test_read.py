"""Today's API reads the rows of every baseline, and gives the answers that are stored beside them."""

from tests.baseline import files, reads
from tests.baseline.files import Baseline
from tests.baseline.world import read_rows, upgrade
from tests.harness import System


def test_every_read_answers_what_is_written_beside_the_rows_and_changes_nothing(
    world: System, baseline: Baseline
) -> None:
    """Write an answer that is changed on purpose anew (tests/baseline/make.py), and read the diff."""
    wanted = {one.what + one.body: one for one in baseline.answers}
    answered = {one.what + one.body: one for one in reads.answers(world)}
    assert answered.keys() == wanted.keys()
    assert [one for one in answered if answered[one] != wanted[one]] == []
    rows = read_rows(world)
    assert [table for table in rows if not files.same_items(rows[table], baseline.rows[table])] == []


def test_who_waited_for_a_change_goes_on_waiting(world: System, baseline: Baseline) -> None:
    """A blocking query with the index of an earlier version's answer ends with the first change, and not before."""
    upgrade(world)
    listed = next(one for one in baseline.answers if one.path == "/v1/volumes" and "namespace=*" in one.query)
    before = world.clock.now()
    again = world.call("GET", listed.path, query=f"type=csi&namespace=*&index={listed.index}&wait=3s")
    assert again.headers["X-Nomad-Index"] == listed.index
    assert world.clock.now() - before >= 3
    assert world.call("DELETE", "/v1/volume/csi/plain/delete").status == 200
    before = world.clock.now()
    after = world.call("GET", listed.path, query=f"type=csi&namespace=*&index={listed.index}&wait=3s")
    assert int(after.headers["X-Nomad-Index"]) > int(listed.index)
    assert world.clock.now() == before
