"""The service that runs jobs: `thalweg serve`, and what its clients do.

schema.py    the table of jobs in SQLite: its versions, and the way from each to the next
table.py     what is kept of each job, and every change of it, each a transaction
queue.py     which job starts next, and why each other one waits
shipping.py  the files that a job names, from the client to the service
checker.py   the checks of `thalweg train`, in processes of their own
cluster.py   the Ray cluster, held by a process of its own
runner.py    the command of each job that runs, which outlives the service
attempts.py  what becomes of a job whose command has ended
keeper.py    the thread that starts, ends and settles jobs
door.py      the gRPC door: Submit, Get, List, Watch, Cancel, Resume, Logs, and Health
page/        the page, for browsers, and what Prometheus is told
showing.py   jobs as they are now, for both doors
watching.py  files that grow, and what Watch and Logs tell of them
messages.py  jobs as messages
serve.py     puts all of it together
"""
