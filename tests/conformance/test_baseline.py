"""The baseline of a next version could be made now: the story still leaves every kind of row that the code writes."""

import pytest

from tests.baseline import make, shapes

pytestmark = pytest.mark.conformance


def test_a_new_baseline_would_hold_every_shape() -> None:
    made = make.make("0.0.0")
    assert sorted(shapes.wanted() - shapes.seen(made)) == []
    assert min(len(made.first), len(made.later), len(made.repeats), len(made.answers)) > 10
