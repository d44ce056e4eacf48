"""Planned faults: what shall go wrong in a run, so that it can be seen what comes of it.

    plan.py     a plan as data, the points that there are, and which fault is due
    reading.py  from a TOML file to a plan and every mistake in it
    acting.py   the edge: writes down that a fault fires, and does it

Who comes to a point says so; what it can do to itself is done there, what only the caller can do is answered:

    if faults.at("rpc.push.request", step).do == DROP:
        continue
"""

from thalweg_proto.faults.acting import NO_FAULTS, RECORD, FaultError, Faults, PlannedFaults
from thalweg_proto.faults.plan import CORRUPT, DOUBLE, DROP, NAN, POINTS, Due, Fault, Plan
from thalweg_proto.faults.reading import load_plan, parse_plan

__all__ = [
    "CORRUPT",
    "DOUBLE",
    "DROP",
    "NAN",
    "NO_FAULTS",
    "POINTS",
    "RECORD",
    "Due",
    "Fault",
    "FaultError",
    "Faults",
    "Plan",
    "PlannedFaults",
    "load_plan",
    "parse_plan",
]
