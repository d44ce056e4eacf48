"""From a job file to a finished run. The only part of the cluster that knows the worker's code.

preparation.py   checks everything that can be checked before anything starts
cores.py         how many workers this machine takes
ray_cluster.py   the Ray cluster to run on: one of our own, or that of RAY_ADDRESS
actors.py        places and starts the server and the workers
announcing.py    where the /metrics of a run are, for Prometheus
run_telemetry.py what the coordinator counts: losses, recoveries
train.py         watches a run, from start to summary.json
trained.py       what a run has learned, from its folder; no Ray
exporting.py     that as a file for the user's framework
evaluating.py    loss and accuracy of it, in this process
"""
