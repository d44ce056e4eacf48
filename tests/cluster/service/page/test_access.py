"""Who may ask the page's door for what."""

from __future__ import annotations

import pytest

from thalweg_cluster.security.tokens import Right, Tokens
from thalweg_cluster.service.page.access import why_no_change, why_not_here, why_not_in

TOKENS = Tokens.of(full="full", read="read")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8701", "127.0.0.1", "[::1]:8701", "[::1]", "localhost:9000", "LOCALHOST", "box.lan:8701", "10.1.2.3"],
)
def test_addresses_and_names_of_the_service_lead_to_it(host):
    """Whatever the port: through a tunnel it is another one."""
    assert why_not_here([host], {"box.lan"}) is None


@pytest.mark.parametrize(
    "hosts", [[], [""], ["evil.example"], ["evil.example:8701"], ["localhost", "localhost"], ["x[::1]"]]
)
def test_a_name_that_somebody_made_lead_here_is_none_of_ours(hosts):
    """DNS rebinding; and a request without one host is none that a browser sends."""
    refused = why_not_here(hosts, {"box.lan"})
    assert refused is not None
    assert refused.status == 421
    assert "Host: expected" in refused.why


def test_a_token_lets_in_to_what_it_allows():
    """As at the gRPC door."""
    assert why_not_in([], None, Right.FULL) is None
    for needs in Right:
        assert why_not_in(["Bearer full"], TOKENS, needs) is None
    assert why_not_in(["bearer read"], TOKENS, Right.READ) is None
    assert why_not_in(["Bearer read"], TOKENS, Right.FULL).status == 403
    for given in ([], ["full"], ["Basic full"], ["Bearer other"], ["Bearer full", "Bearer full"]):
        refused = why_not_in(given, TOKENS, Right.READ)
        assert refused.status == 401
        assert "full" not in refused.why


def test_what_changes_something_is_json_of_the_pages_own():
    """A form of another page is neither; a program that sends no Origin is no browser."""
    here = ["127.0.0.1:8701"]
    for origins in ([], ["http://127.0.0.1:8701"], ["https://127.0.0.1:8701"]):
        assert why_no_change(origins, here, "application/json; charset=utf-8") is None
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8702", ""):
        assert why_no_change([origin], here, "application/json").status == 403
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert why_no_change([], here, kind).status == 415
