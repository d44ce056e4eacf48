"""The worker's side of a step, again and again: sample, forward, backward, push.

meeting.py      where the workers of one host meet; they sum, update and publish, too
served.py       where the server of the host says what to compute, and does the rest
local_steps.py  several steps of a worker by itself, as one gradient
"""

from thalweg_worker.loop.local_steps import LocalUpdate, NewLocalUpdate
from thalweg_worker.loop.meeting import run as run_meeting
from thalweg_worker.loop.served import ServedLoop
from thalweg_worker.loop.served import run as run_served

__all__ = ["LocalUpdate", "NewLocalUpdate", "ServedLoop", "run_meeting", "run_served"]
