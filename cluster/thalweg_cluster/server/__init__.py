"""The parameter server of one host: it owns the memory of the parameters and keeps the account of a run.

spec.py       what a server is told when it is made, and what it answers in the end
door.py       the sockets: who may join, who says what
evaluation.py the held-out set, put together from its chunks
nonfinite.py  which loss or gradient broke, in words
telemetry.py  what happened, counted off the hot path
membership.py who takes part in the steps of one host
speculation.py when a microbatch that a slow worker is in the middle of is given to another one, too
places.py     where gradients are meanwhile
server.py     a run, as the server sees it

What it does in a step (sum, update, publish) is in ../step.py and ../update.py: the host's workers do it on its behalf.
"""
