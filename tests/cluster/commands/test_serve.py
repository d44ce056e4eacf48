"""Where a service listens."""

from __future__ import annotations

import pytest

from thalweg_cluster.commands.serve import page_address
from thalweg_proto.errors import InputError


def test_the_page_is_on_loopback_one_port_after_the_services_own():
    """A free one where that is, or where there is none after it."""
    assert page_address(None, 8700) == ("127.0.0.1", 8701)
    assert page_address(None, 0) == page_address(None, 65535) == ("127.0.0.1", 0)


def test_it_is_where_somebody_wants_it_or_nowhere():
    """What is no address is told with the name of the option."""
    assert page_address("0.0.0.0:80", 8700) == ("0.0.0.0", 80)
    assert page_address("[::1]:0", 8700) == ("[::1]", 0)
    assert page_address("off", 8700) is None
    with pytest.raises(InputError, match=r"--page: expected HOST:PORT, as in 127\.0\.0\.1:8700; found 'on'"):
        page_address("on", 8700)
