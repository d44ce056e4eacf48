"""Which gradients go into which step: one small object for each mode, without sockets, threads or time.

barrier.py   a step ends when all its gradients are in, or all but k: sync, backup workers
stale.py     work is dealt out one unit after the other, and each push is applied at once: ssp, async
"""

from thalweg_cluster.consistency.barrier import Barrier
from thalweg_cluster.consistency.stale import Grant, StaleSynchronous
from thalweg_cluster.consistency.verdict import Verdict

__all__ = ["Barrier", "Grant", "StaleSynchronous", "Verdict"]
