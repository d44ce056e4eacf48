"""One server on each host: sums, updates and publishes what its shard is, over gRPC where there are several hosts.

spec.py          what a server is told when it is made
server.py        the server: its workers on one side, its peers on the other, one thread that decides
workers.py       its workers: who is there, what each has in hand, who hangs, who is slow
in_hand.py       what each worker has in hand
silence.py       which host says nothing
wording.py       what is said of a failure
barrier_flow.py  the way of a step for sync, backup workers and local steps
stale_flow.py    the way of a push for ssp and async
lead.py          what is decided once for all hosts, by the server of host 0
readiness.py     which blocks are there
shard.py         the arithmetic of a shard's owner
checks.py        what a message must be to be let in
listener.py      a gRPC server with bounds on everything
access.py        which right each method takes
hosts_door.py    the gRPC door for the other hosts: Push, Pull, Status, Attend
clients_door.py  the gRPC door for everybody else: Push, Pull, Status, Health
answering.py     what both do alike
callers.py       who calls them, and how much at a time
outside.py       pushes of somebody who is no host of the job
window.py        the door of a run on one host, whose workers meet
status.py        what Status answers
snapshot.py      a copy of parameters that go on changing
saving.py        what a host saves, on storage and in other hosts' memory
replicating.py   when the next replica is to be made
peers.py         the gRPC client: the streams to the other hosts
streams.py       what waits to be sent
encoding.py      gradients in the wire format, and what they lose kept for later
flow.py          what a flow and the server that runs it are to each other
events.py        what other threads tell the one that decides
local.py         the rule as one worker applies it in local steps
latency.py       threads that run as soon as they are woken
"""
