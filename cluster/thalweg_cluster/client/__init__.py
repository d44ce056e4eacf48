"""A client of the service that runs jobs (`thalweg serve`).

    from thalweg_cluster.client import Client

    with Client("10.0.0.5:8700", token="...", ca=Path("ca.pem").read_bytes()) as client:
        job = client.submit("job.toml", ["train.steps=500"])
        for news in client.watch(job.id):
            print(news)                                    # a Job when it has changed, a MetricsRow for each row
        assert client.get(job.id).state == "succeeded"

jobs.py     a job, and a row of its metrics, as values
packing.py  the job file and the files that it names
calling.py  the calls, and what their errors mean
"""

from thalweg_cluster.client.calling import Client
from thalweg_cluster.client.jobs import Job, MetricsRow

__all__ = ["Client", "Job", "MetricsRow"]
