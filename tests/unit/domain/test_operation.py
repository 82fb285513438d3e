"""The state machine of operations (tests/unit/test_docs.py compares the drawing of it)."""

import pytest

from chalicelib.domain.operation import (
    CLOSED,
    LONGEST_DELAY,
    TRANSITIONS,
    TRY_LIMIT,
    Event,
    IllegalTransition,
    Status,
    advance,
    retry_delay,
)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_what_the_table_does_not_name_is_refused(status: Status, event: Event) -> None:
    if (status, event) in TRANSITIONS:
        assert advance(status, event) is TRANSITIONS[status, event]
    else:
        with pytest.raises(IllegalTransition):
            advance(status, event)


def test_nothing_leaves_a_closed_state_and_everything_else_can_reach_one() -> None:
    assert not any(status in CLOSED for status, _ in TRANSITIONS)
    reaches = set(CLOSED)
    while more := {s for (s, _), target in TRANSITIONS.items() if target in reaches} - reaches:
        reaches |= more
    assert reaches == set(Status)


def test_delays_grow_to_a_limit_and_are_spread() -> None:
    delays = [retry_delay(tries, 0.0) for tries in range(TRY_LIMIT + 1)]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY
    assert retry_delay(3, 1.0) == 1.25 * retry_delay(3, 0.0)


def test_an_operation_is_tried_for_hours_before_it_is_given_up() -> None:
    assert 2 * 3600 < sum(retry_delay(tries, 0.0) for tries in range(TRY_LIMIT)) < 12 * 3600
