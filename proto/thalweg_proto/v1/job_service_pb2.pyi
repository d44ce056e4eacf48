from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    QUEUED: _ClassVar[JobState]
    RUNNING: _ClassVar[JobState]
    CANCELLING: _ClassVar[JobState]
    SUCCEEDED: _ClassVar[JobState]
    FAILED: _ClassVar[JobState]
    CANCELLED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
QUEUED: JobState
RUNNING: JobState
CANCELLING: JobState
SUCCEEDED: JobState
FAILED: JobState
CANCELLED: JobState

class Job(_message.Message):
    __slots__ = ("id", "name", "state", "why", "error", "priority", "workers", "attempts", "submitted_s", "started_s", "ended_s", "worker_seconds", "step", "loss", "samples_per_s", "steps", "folder")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_S_FIELD_NUMBER: _ClassVar[int]
    STARTED_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_S_FIELD_NUMBER: _ClassVar[int]
    WORKER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: JobState
    why: str
    error: str
    priority: int
    workers: int
    attempts: int
    submitted_s: float
    started_s: float
    ended_s: float
    worker_seconds: float
    step: int
    loss: float
    samples_per_s: float
    steps: int
    folder: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., why: _Optional[str] = ..., error: _Optional[str] = ..., priority: _Optional[int] = ..., workers: _Optional[int] = ..., attempts: _Optional[int] = ..., submitted_s: _Optional[float] = ..., started_s: _Optional[float] = ..., ended_s: _Optional[float] = ..., worker_seconds: _Optional[float] = ..., step: _Optional[int] = ..., loss: _Optional[float] = ..., samples_per_s: _Optional[float] = ..., steps: _Optional[int] = ..., folder: _Optional[str] = ...) -> None: ...

class FileHeader(_message.Message):
    __slots__ = ("name", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class SubmitHeader(_message.Message):
    __slots__ = ("protocol_version", "request_id", "job", "files", "priority")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: str
    job: str
    files: _containers.RepeatedCompositeFieldContainer[FileHeader]
    priority: int
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[str] = ..., job: _Optional[str] = ..., files: _Optional[_Iterable[_Union[FileHeader, _Mapping]]] = ..., priority: _Optional[int] = ...) -> None: ...

class SubmitPart(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: SubmitHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[SubmitHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Mistake(_message.Message):
    __slots__ = ("field", "expected", "found", "hint")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    field: str
    expected: str
    found: str
    hint: str
    def __init__(self, field: _Optional[str] = ..., expected: _Optional[str] = ..., found: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("job", "mistakes", "repeated_request")
    JOB_FIELD_NUMBER: _ClassVar[int]
    MISTAKES_FIELD_NUMBER: _ClassVar[int]
    REPEATED_REQUEST_FIELD_NUMBER: _ClassVar[int]
    job: Job
    mistakes: _containers.RepeatedCompositeFieldContainer[Mistake]
    repeated_request: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., mistakes: _Optional[_Iterable[_Union[Mistake, _Mapping]]] = ..., repeated_request: bool = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("protocol_version", "id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("protocol_version", "limit", "before", "state")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    limit: int
    before: str
    state: JobState
    def __init__(self, protocol_version: _Optional[int] = ..., limit: _Optional[int] = ..., before: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("jobs", "total")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    total: int
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class MetricsRow(_message.Message):
    __slots__ = ("step", "time_s", "train_loss", "learning_rate", "gradient_norm", "samples_per_s", "eval_loss", "eval_accuracy")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    EVAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    EVAL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    step: int
    time_s: float
    train_loss: float
    learning_rate: float
    gradient_norm: float
    samples_per_s: float
    eval_loss: float
    eval_accuracy: float
    def __init__(self, step: _Optional[int] = ..., time_s: _Optional[float] = ..., train_loss: _Optional[float] = ..., learning_rate: _Optional[float] = ..., gradient_norm: _Optional[float] = ..., samples_per_s: _Optional[float] = ..., eval_loss: _Optional[float] = ..., eval_accuracy: _Optional[float] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("protocol_version", "id", "after_step")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    after_step: int
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ..., after_step: _Optional[int] = ...) -> None: ...

class WatchReply(_message.Message):
    __slots__ = ("job", "row")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    job: Job
    row: MetricsRow
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., row: _Optional[_Union[MetricsRow, _Mapping]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("protocol_version", "id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("protocol_version", "id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("protocol_version", "id", "offset", "follow")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    offset: int
    follow: bool
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ..., offset: _Optional[int] = ..., follow: bool = ...) -> None: ...

class LogsReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
