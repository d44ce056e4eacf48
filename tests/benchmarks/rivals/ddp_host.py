"""The rival DDP with a host for each worker: this is one worker, started on its host.

The environment says where it stands, as `torchrun` would: RANK, MASTER_ADDR and MASTER_PORT of the process group, and
GLOO_SOCKET_IFNAME, the network interface.
"""

from __future__ import annotations

import os

from tests.benchmarks.rivals.common import parse_task
from tests.benchmarks.rivals.ddp import work

if __name__ == "__main__":
    work(int(os.environ["RANK"]), parse_task())
