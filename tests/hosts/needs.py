"""Whether hosts can be made here, and the mark for tests that need them."""

from __future__ import annotations

import os
import shutil

import pytest
from tests.hosts.host import Host
from tests.hosts.process import HostError

TOOLS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}


def why_not() -> str | None:
    """None where hosts can be made; else what is missing, and what to do about it."""
    if os.geteuid() != 0:
        return "hosts are network namespaces, which need root: run the tests as root"
    if missing := {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}:
        packages = " ".join(sorted(set(missing.values())))
        return f"hosts need {', '.join(missing)}: apt-get install {packages}"
    try:
        Host("trial", "", names={}, shm_bytes=1 << 20).close()
    except HostError as error:
        return f"{error}: in a container, run it with all capabilities (docker run --privileged)"
    return None


_reason = why_not()
needs_hosts = pytest.mark.skipif(_reason is not None, reason=_reason or "")
