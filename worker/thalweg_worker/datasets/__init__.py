"""Data sets: read and checked once in the driver, then gathered row by row in the workers.

    loaded = load_dataset(job.data, job.seed)               # the data, or its problems and what is known yet
    data = loaded.data                                      # TrainEval: train, eval, spec, class_names, scaling
    data.train.take(indices, x, y)                          # float32, scaled, into buffers that stay

| form of data.train, data.eval         | x                                    | where it stays                      |
|---------------------------------------|--------------------------------------|-------------------------------------|
| "digits"                              | (1797, 8, 8), 10 classes             | memory (needs scikit-learn)         |
| .npz with arrays x and y              | (N, ...) as saved                    | memory                              |
| { x, y } of .npy                      | (N, ...) as saved                    | mapped: may be larger than memory   |
| { x, y } of idx or idx.gz (MNIST)     | (N, ...)                             | mapped, or memory where gzipped     |
| .csv with a header, UTF-8             | (N, columns but the label)           | memory                              |
| .parquet                              | (N, columns but the label)           | memory (needs pyarrow)              |
| a folder of .parquet files            | (N, columns but the label)           | decoded once to a cache, and mapped |
| .txt, .md, UTF-8                      | (N, context) tokens, y (N, context)  | memory; a large one in the cache    |
| "FILE.py:FUNCTION"                    | (N, ...) as its samples are          | where the user's code has it        |

Rules:

- Whole numbers and text as labels are classes, floats are targets of a regression; `task` says otherwise. The distinct
  labels of the training file, sorted, are the classes 0 .. k-1.
- Features become float32; only whole numbers of 4 or 8 bytes with scale = "none" stay whole, as int64: tokens.
- Statistics are those of the training rows. Which rows are held out follows from the job's seed alone.
- Mapped files are read in chunks of bounded size; nothing is ever unpickled.
- Every mistake is a `Problem` that names the file and the row and column (for .csv the line).

Of these rules text (text.py) and user's functions (user_set.py, function_loading.py) have some of their own.

What each set is to the step loop is `Samples`. Workers get one as its `to_shipment()`: mapped arrays travel as path
and place, the others as arrays (through Ray's object store without a copy for each worker), a user's function as the
text of its file, whose samples are fetched while the step before computes (fetcher.py). A Dataset pickles as its
shipment.
"""

from thalweg_worker.datasets.dataset import Dataset, Shipment
from thalweg_worker.datasets.fetched import FetchedDataset
from thalweg_worker.datasets.fetcher import Fetcher
from thalweg_worker.datasets.loaded import Loaded, TrainEval
from thalweg_worker.datasets.loading import load_dataset
from thalweg_worker.datasets.samples import Samples, Shipped
from thalweg_worker.datasets.scaling import Scaling
from thalweg_worker.datasets.stored import MappedArray

__all__ = [
    "Dataset",
    "FetchedDataset",
    "Fetcher",
    "Loaded",
    "MappedArray",
    "Samples",
    "Scaling",
    "Shipment",
    "Shipped",
    "TrainEval",
    "load_dataset",
]
