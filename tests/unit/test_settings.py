"""What a function is told by its environment."""

import pytest

from chalicelib.domain.deadlines import SILENT_AFTER, WAIT_LIMIT
from chalicelib.domain.plugin import LivenessPolicy
from chalicelib.settings import Settings


def test_everything_has_a_default() -> None:
    found = Settings.from_env({})
    assert (found.stage, found.wait_seconds, found.max_waits) == ("dev", WAIT_LIMIT, 500)
    assert found.liveness == LivenessPolicy(silent_after=SILENT_AFTER, outage_count=2, outage_share=1 / 3)
    assert found.key == "alias/moorage-dev"


def test_everything_can_be_set() -> None:
    found = Settings.from_env(
        {
            "MOORAGE_STAGE": "prod",
            "MOORAGE_WAIT_SECONDS": "5.5",
            "MOORAGE_MAX_WAITS": "0",
            "MOORAGE_KEY_ARN": "arn:aws:kms:::key/1",
            "MOORAGE_SILENT_SECONDS": "600",
            "MOORAGE_SILENT_FEW": "0",
            "MOORAGE_SILENT_SHARE": "0.5",
            "AWS_REGION": "eu-west-1",
        }
    )
    assert (found.stage, found.wait_seconds, found.max_waits, found.region) == ("prod", 5.5, 0, "eu-west-1")
    assert found.liveness == LivenessPolicy(silent_after=600, outage_count=0, outage_share=0.5)
    assert found.key == "arn:aws:kms:::key/1"


def test_a_wait_is_never_longer_than_the_gateway_allows() -> None:
    assert Settings.from_env({"MOORAGE_WAIT_SECONDS": "600"}).wait_seconds == WAIT_LIMIT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOORAGE_WAIT_SECONDS", "long"),
        ("MOORAGE_MAX_WAITS", "-1"),
        ("MOORAGE_MAX_WAITS", "many"),
        ("MOORAGE_SILENT_SECONDS", "30"),
        ("MOORAGE_SILENT_SECONDS", "nan"),
        ("MOORAGE_SILENT_SHARE", "33%"),
        ("MOORAGE_SILENT_SHARE", "2"),
        ("MOORAGE_SILENT_FEW", ""),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_env({name: value})
