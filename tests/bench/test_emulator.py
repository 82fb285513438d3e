"""What it costs the local system to keep its state: a write and a start, with few volumes and with ten thousand."""

from pathlib import Path
from statistics import median
from typing import Any

from infra.local import clock
from tests.emulator.conftest import Running
from tests.emulator.test_storage import make_table

VOLUMES = 10_000
ROWS = 3
"""Of one volume: the record, its operation, its claim."""
WRITES = 200


def fill(client: Any, first: int, last: int) -> None:
    rows = [
        {"pk": {"S": f"volume-{volume % 16}"}, "sk": {"S": f"{volume:06}-{row}"}, "body": {"S": "x" * 1200}}
        for volume in range(first, last)
        for row in range(ROWS)
    ]
    for start in range(0, len(rows), 25):
        requests = [{"PutRequest": {"Item": item}} for item in rows[start : start + 25]]
        client.batch_write_item(RequestItems={"things": requests})


def milliseconds_of_a_write(client: Any) -> float:
    taken = []
    for number in range(WRITES):
        started = clock.monotonic()
        client.put_item(
            TableName="things",
            Item={"pk": {"S": "written"}, "sk": {"S": str(number)}, "body": {"S": "x" * 1200}},
        )
        taken.append(clock.monotonic() - started)
    return median(taken) * 1000


def seconds_of_a_start(running: Running) -> float:
    running.kill()
    started = clock.monotonic()
    running.restart()
    return clock.monotonic() - started


def test_keeping_ten_thousand_volumes(tmp_path: Path) -> None:
    running = Running(tmp_path / "state")
    try:
        client = running.client("dynamodb")
        make_table(client)
        fill(client, 0, 100)
        few, start_few = milliseconds_of_a_write(client), seconds_of_a_start(running)
        fill(client, 100, VOLUMES)
        written = running.written()
        many = milliseconds_of_a_write(client)
        bytes_a_write = (running.written() - written) / WRITES
        start_many = seconds_of_a_start(running)
        size = sum(path.stat().st_size for path in running.settings.emulator_state.glob("items.sqlite*"))
    finally:
        running.emulator.child.kill()
    print(f"\na durable write: {few:.1f} ms with 100 volumes, {many:.1f} ms with {VOLUMES} ({many / few:.1f} times)")
    print(f"bytes that reach files for one write with {VOLUMES}: {bytes_a_write:.0f}; on disk: {size / 1e6:.0f} MB")
    print(f"a start after a kill: {start_few:.1f} s with 100 volumes, {start_many:.1f} s with {VOLUMES}")
    assert many < 3 * few
