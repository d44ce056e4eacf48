from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Progress(_message.Message):
    __slots__ = ("sent", "taken", "again")
    SENT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    sent: int
    taken: int
    again: bool
    def __init__(self, sent: _Optional[int] = ..., taken: _Optional[int] = ..., again: bool = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("number", "checksum", "progress")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    number: int
    checksum: int
    progress: Progress
    def __init__(self, number: _Optional[int] = ..., checksum: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...
