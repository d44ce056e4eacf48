from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("protocol_version", "job_id", "rank", "layout_sha256")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_id: str
    rank: int
    layout_sha256: str
    def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., rank: _Optional[int] = ..., layout_sha256: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("refused", "size", "gradients", "meet", "workers", "slots", "versions", "spares", "chunks")
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    MEET_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SPARES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    refused: str
    size: int
    gradients: int
    meet: bool
    workers: int
    slots: int
    versions: int
    spares: int
    chunks: int
    def __init__(self, refused: _Optional[str] = ..., size: _Optional[int] = ..., gradients: _Optional[int] = ..., meet: bool = ..., workers: _Optional[int] = ..., slots: _Optional[int] = ..., versions: _Optional[int] = ..., spares: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...
