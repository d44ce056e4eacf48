"""The page of the service: jobs and their curves in a browser, and the list of what there is to scrape for Prometheus.

access.py     who may ask for what
curve.py      a run's curve, in a bounded number of points
workers.py    where the time of each worker's steps went, and who is a straggler
following.py  what is new of one run, from its files
news.py       what somebody who has the page open is told
door.py       the HTTP door
static/       the page: plain modules of JavaScript, and uPlot (static/uplot/LICENSE), which draws the curves

What can be asked, with "Authorization: Bearer TOKEN" where the service has tokens; errors are {"error": "..."}:

    GET /                          the page; it and what it is made of take no token
    GET /api/jobs?before=ID        the newest jobs, or those before one: {"jobs": [JOB, ...]}, at most 100
    GET /api/news?job=ID           what there is, and then all that changes, a line of JSON each; an empty line each
                                   10 s says that the service is there. It ends after an hour: ask again
    POST /api/jobs/ID/cancel       ends a job: JOB. It takes the full token, and Content-Type: application/json
    GET /targets                   every /metrics of the jobs that run, for HTTP service discovery of Prometheus

JOB has the fields of `thalweg jobs --json`. A line of the news has some of

    jobs       [JOB, ...]: first the newest, and those that run; then those that changed
    counts     {STATE: how many jobs are in it}
    run        what is new of the job that was named:
      curve      {"anew": whether `points` is all there is, else they come after those before; "points": [POINT, ...]}
      newest     POINT
      workers    [{"rank", "steps", "microbatches"; "sample_ms", "compute_ms", "push_ms", "wait_ms": of a step, on
                   average; "microbatch_ms", "slowness": so many times what it takes the others, null: not known;
                   "waited_for_s": for how long others waited for it; "sits_out", "straggler"}, ...]
      window_s   of which time that is: the newest so many seconds; null: all of the attempt
      staleness, checkpoints, skipped   as in server/so_far.py
      losses     [[what died, "worker" or "server" or "coordinator"; its number; why], ...]

and a POINT {"step", "time_s", "train_loss", "eval_loss", "eval_accuracy", "samples_per_s", "learning_rate",
"staleness"}, of which those that are not known are left out.
"""
