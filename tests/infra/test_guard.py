"""Which requests a web page cannot make: by Host, Origin and Sec-Fetch-Site."""

import pytest

from infra.local import guard

HERE = "127.0.0.1:4646"


@pytest.mark.parametrize(
    ("host", "origin", "site", "status"),
    [
        (HERE, None, None, None),  # curl, an SDK
        ("localhost:4646", None, "none", None),  # typed into a browser's address bar
        (HERE, f"http://{HERE}", "same-origin", None),  # a page that this server itself served
        ("[::1]:4646", None, None, None),
        ("api.dev.moorage.internal", None, None, None),
        ("evil.example:4646", None, None, 421),
        ("", None, None, 421),
        ("127.0.0.1.evil.example", None, None, 421),
        (HERE, "http://evil.example", "cross-site", 403),
        (HERE, "http://evil.example", None, 403),
        (HERE, "null", "cross-site", 403),  # a sandboxed frame
        (HERE, "http://127.0.0.1:8080", "same-site", 403),
        (HERE, f"https://{HERE}", None, 403),
        (HERE, "http://localhost:4646", None, 403),
        (HERE, None, "cross-site", 403),  # an image
        (HERE, None, "Cross-Site", 403),
        (HERE, None, "same-site", 403),
        (HERE, None, "something-new", 403),
    ],
)
def test_a_request_is_judged_by_what_a_browser_says_of_it(
    host: str, origin: str | None, site: str | None, status: int | None
) -> None:
    refused = guard.refusal(host, origin, site, names=["api.dev.moorage.internal"])
    assert (refused.status if refused else None) == status
