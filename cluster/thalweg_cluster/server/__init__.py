"""The parameter server of one host: sum, update, publish.

spec.py       what a server is told when it is made, and what it answers in the end
door.py       the sockets: who may join, who says what
evaluation.py the held-out set, put together from its chunks
nonfinite.py  which loss or gradient broke, in words
telemetry.py  what happened, counted off the hot path
server.py     the step, as the server sees it
"""
