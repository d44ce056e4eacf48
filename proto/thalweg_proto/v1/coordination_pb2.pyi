from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HostMessage(_message.Message):
    __slots__ = ("joined", "ready", "pushed", "applied", "squares", "records", "evaluated", "whole", "failed", "left", "beat", "copied", "saved", "hung", "gone", "came", "returned", "copies", "number", "checksum")
    class Joined(_message.Message):
        __slots__ = ("protocol_version", "job_id", "generation")
        PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
        JOB_ID_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        protocol_version: int
        job_id: str
        generation: int
        def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...
    class Ready(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Pushed(_message.Message):
        __slots__ = ("step", "part", "loss", "rank")
        STEP_FIELD_NUMBER: _ClassVar[int]
        PART_FIELD_NUMBER: _ClassVar[int]
        LOSS_FIELD_NUMBER: _ClassVar[int]
        RANK_FIELD_NUMBER: _ClassVar[int]
        step: int
        part: int
        loss: float
        rank: int
        def __init__(self, step: _Optional[int] = ..., part: _Optional[int] = ..., loss: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...
    class Applied(_message.Message):
        __slots__ = ("rank",)
        RANK_FIELD_NUMBER: _ClassVar[int]
        rank: int
        def __init__(self, rank: _Optional[int] = ...) -> None: ...
    class Squares(_message.Message):
        __slots__ = ("step", "first_chunk", "squares")
        STEP_FIELD_NUMBER: _ClassVar[int]
        FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
        SQUARES_FIELD_NUMBER: _ClassVar[int]
        step: int
        first_chunk: int
        squares: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, step: _Optional[int] = ..., first_chunk: _Optional[int] = ..., squares: _Optional[_Iterable[float]] = ...) -> None: ...
    class Records(_message.Message):
        __slots__ = ("records",)
        RECORDS_FIELD_NUMBER: _ClassVar[int]
        records: bytes
        def __init__(self, records: _Optional[bytes] = ...) -> None: ...
    class Evaluated(_message.Message):
        __slots__ = ("version", "chunk", "labels", "correct", "loss_sum")
        VERSION_FIELD_NUMBER: _ClassVar[int]
        CHUNK_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        CORRECT_FIELD_NUMBER: _ClassVar[int]
        LOSS_SUM_FIELD_NUMBER: _ClassVar[int]
        version: int
        chunk: int
        labels: int
        correct: int
        loss_sum: float
        def __init__(self, version: _Optional[int] = ..., chunk: _Optional[int] = ..., labels: _Optional[int] = ..., correct: _Optional[int] = ..., loss_sum: _Optional[float] = ...) -> None: ...
    class Whole(_message.Message):
        __slots__ = ("version",)
        VERSION_FIELD_NUMBER: _ClassVar[int]
        version: int
        def __init__(self, version: _Optional[int] = ...) -> None: ...
    class Failed(_message.Message):
        __slots__ = ("error",)
        ERROR_FIELD_NUMBER: _ClassVar[int]
        error: str
        def __init__(self, error: _Optional[str] = ...) -> None: ...
    class Copied(_message.Message):
        __slots__ = ("version",)
        VERSION_FIELD_NUMBER: _ClassVar[int]
        version: int
        def __init__(self, version: _Optional[int] = ...) -> None: ...
    class Saved(_message.Message):
        __slots__ = ("version", "skipped", "error", "file", "replica")
        VERSION_FIELD_NUMBER: _ClassVar[int]
        SKIPPED_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        FILE_FIELD_NUMBER: _ClassVar[int]
        REPLICA_FIELD_NUMBER: _ClassVar[int]
        version: int
        skipped: bool
        error: str
        file: str
        replica: bool
        def __init__(self, version: _Optional[int] = ..., skipped: bool = ..., error: _Optional[str] = ..., file: _Optional[str] = ..., replica: bool = ...) -> None: ...
    class Left(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Beat(_message.Message):
        __slots__ = ("gradients_sent", "gradients_received", "parameters_sent", "parameters_received", "messages_repeated", "messages_spoilt", "messages_missing")
        GRADIENTS_SENT_FIELD_NUMBER: _ClassVar[int]
        GRADIENTS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
        PARAMETERS_SENT_FIELD_NUMBER: _ClassVar[int]
        PARAMETERS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_REPEATED_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_SPOILT_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_MISSING_FIELD_NUMBER: _ClassVar[int]
        gradients_sent: int
        gradients_received: int
        parameters_sent: int
        parameters_received: int
        messages_repeated: int
        messages_spoilt: int
        messages_missing: int
        def __init__(self, gradients_sent: _Optional[int] = ..., gradients_received: _Optional[int] = ..., parameters_sent: _Optional[int] = ..., parameters_received: _Optional[int] = ..., messages_repeated: _Optional[int] = ..., messages_spoilt: _Optional[int] = ..., messages_missing: _Optional[int] = ...) -> None: ...
    class Hung(_message.Message):
        __slots__ = ("rank", "found")
        RANK_FIELD_NUMBER: _ClassVar[int]
        FOUND_FIELD_NUMBER: _ClassVar[int]
        rank: int
        found: str
        def __init__(self, rank: _Optional[int] = ..., found: _Optional[str] = ...) -> None: ...
    class Gone(_message.Message):
        __slots__ = ("rank",)
        RANK_FIELD_NUMBER: _ClassVar[int]
        rank: int
        def __init__(self, rank: _Optional[int] = ...) -> None: ...
    class Came(_message.Message):
        __slots__ = ("rank",)
        RANK_FIELD_NUMBER: _ClassVar[int]
        rank: int
        def __init__(self, rank: _Optional[int] = ...) -> None: ...
    class Copies(_message.Message):
        __slots__ = ("given", "won", "late", "rank", "waited_s")
        GIVEN_FIELD_NUMBER: _ClassVar[int]
        WON_FIELD_NUMBER: _ClassVar[int]
        LATE_FIELD_NUMBER: _ClassVar[int]
        RANK_FIELD_NUMBER: _ClassVar[int]
        WAITED_S_FIELD_NUMBER: _ClassVar[int]
        given: int
        won: int
        late: int
        rank: int
        waited_s: float
        def __init__(self, given: _Optional[int] = ..., won: _Optional[int] = ..., late: _Optional[int] = ..., rank: _Optional[int] = ..., waited_s: _Optional[float] = ...) -> None: ...
    class Returned(_message.Message):
        __slots__ = ("rank",)
        RANK_FIELD_NUMBER: _ClassVar[int]
        rank: int
        def __init__(self, rank: _Optional[int] = ...) -> None: ...
    JOINED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PUSHED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    COPIED_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    HUNG_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    CAME_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    joined: HostMessage.Joined
    ready: HostMessage.Ready
    pushed: HostMessage.Pushed
    applied: HostMessage.Applied
    squares: HostMessage.Squares
    records: HostMessage.Records
    evaluated: HostMessage.Evaluated
    whole: HostMessage.Whole
    failed: HostMessage.Failed
    left: HostMessage.Left
    beat: HostMessage.Beat
    copied: HostMessage.Copied
    saved: HostMessage.Saved
    hung: HostMessage.Hung
    gone: HostMessage.Gone
    came: HostMessage.Came
    returned: HostMessage.Returned
    copies: HostMessage.Copies
    number: int
    checksum: int
    def __init__(self, joined: _Optional[_Union[HostMessage.Joined, _Mapping]] = ..., ready: _Optional[_Union[HostMessage.Ready, _Mapping]] = ..., pushed: _Optional[_Union[HostMessage.Pushed, _Mapping]] = ..., applied: _Optional[_Union[HostMessage.Applied, _Mapping]] = ..., squares: _Optional[_Union[HostMessage.Squares, _Mapping]] = ..., records: _Optional[_Union[HostMessage.Records, _Mapping]] = ..., evaluated: _Optional[_Union[HostMessage.Evaluated, _Mapping]] = ..., whole: _Optional[_Union[HostMessage.Whole, _Mapping]] = ..., failed: _Optional[_Union[HostMessage.Failed, _Mapping]] = ..., left: _Optional[_Union[HostMessage.Left, _Mapping]] = ..., beat: _Optional[_Union[HostMessage.Beat, _Mapping]] = ..., copied: _Optional[_Union[HostMessage.Copied, _Mapping]] = ..., saved: _Optional[_Union[HostMessage.Saved, _Mapping]] = ..., hung: _Optional[_Union[HostMessage.Hung, _Mapping]] = ..., gone: _Optional[_Union[HostMessage.Gone, _Mapping]] = ..., came: _Optional[_Union[HostMessage.Came, _Mapping]] = ..., returned: _Optional[_Union[HostMessage.Returned, _Mapping]] = ..., copies: _Optional[_Union[HostMessage.Copies, _Mapping]] = ..., number: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class LeadMessage(_message.Message):
    __slots__ = ("begin", "norm", "closed", "granted", "evaluate", "last", "stop", "beat", "save", "number", "checksum")
    class Begin(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Norm(_message.Message):
        __slots__ = ("step", "norm")
        STEP_FIELD_NUMBER: _ClassVar[int]
        NORM_FIELD_NUMBER: _ClassVar[int]
        step: int
        norm: float
        def __init__(self, step: _Optional[int] = ..., norm: _Optional[float] = ...) -> None: ...
    class Closed(_message.Message):
        __slots__ = ("step", "parts")
        STEP_FIELD_NUMBER: _ClassVar[int]
        PARTS_FIELD_NUMBER: _ClassVar[int]
        step: int
        parts: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, step: _Optional[int] = ..., parts: _Optional[_Iterable[int]] = ...) -> None: ...
    class Granted(_message.Message):
        __slots__ = ("rank", "step", "microbatch", "version")
        RANK_FIELD_NUMBER: _ClassVar[int]
        STEP_FIELD_NUMBER: _ClassVar[int]
        MICROBATCH_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        rank: int
        step: int
        microbatch: int
        version: int
        def __init__(self, rank: _Optional[int] = ..., step: _Optional[int] = ..., microbatch: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...
    class Evaluate(_message.Message):
        __slots__ = ("version",)
        VERSION_FIELD_NUMBER: _ClassVar[int]
        version: int
        def __init__(self, version: _Optional[int] = ...) -> None: ...
    class Save(_message.Message):
        __slots__ = ("version", "replica")
        VERSION_FIELD_NUMBER: _ClassVar[int]
        REPLICA_FIELD_NUMBER: _ClassVar[int]
        version: int
        replica: bool
        def __init__(self, version: _Optional[int] = ..., replica: bool = ...) -> None: ...
    class Last(_message.Message):
        __slots__ = ("version", "evaluate")
        VERSION_FIELD_NUMBER: _ClassVar[int]
        EVALUATE_FIELD_NUMBER: _ClassVar[int]
        version: int
        evaluate: bool
        def __init__(self, version: _Optional[int] = ..., evaluate: bool = ...) -> None: ...
    class Stop(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Beat(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    SAVE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    begin: LeadMessage.Begin
    norm: LeadMessage.Norm
    closed: LeadMessage.Closed
    granted: LeadMessage.Granted
    evaluate: LeadMessage.Evaluate
    last: LeadMessage.Last
    stop: LeadMessage.Stop
    beat: LeadMessage.Beat
    save: LeadMessage.Save
    number: int
    checksum: int
    def __init__(self, begin: _Optional[_Union[LeadMessage.Begin, _Mapping]] = ..., norm: _Optional[_Union[LeadMessage.Norm, _Mapping]] = ..., closed: _Optional[_Union[LeadMessage.Closed, _Mapping]] = ..., granted: _Optional[_Union[LeadMessage.Granted, _Mapping]] = ..., evaluate: _Optional[_Union[LeadMessage.Evaluate, _Mapping]] = ..., last: _Optional[_Union[LeadMessage.Last, _Mapping]] = ..., stop: _Optional[_Union[LeadMessage.Stop, _Mapping]] = ..., beat: _Optional[_Union[LeadMessage.Beat, _Mapping]] = ..., save: _Optional[_Union[LeadMessage.Save, _Mapping]] = ..., number: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...
