"""Commands of `thalweg` beside those of one run (cli.py). What is slow to import is imported when it is needed.

mistakes.py  errors as messages and exit statuses, for all commands
serve.py     the service
monitor.py   what Prometheus is told of it
weights.py   what a run has learned: export, eval
jobs.py      its clients: submit, jobs, watch, cancel, logs, resume
"""
