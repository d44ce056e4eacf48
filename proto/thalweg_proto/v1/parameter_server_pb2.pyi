from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_UNSPECIFIED: _ClassVar[Format]
    FLOAT32: _ClassVar[Format]
    BFLOAT16: _ClassVar[Format]
    INT8: _ClassVar[Format]
    TOPK: _ClassVar[Format]

class PushResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUSH_RESULT_UNSPECIFIED: _ClassVar[PushResult]
    ACCEPTED: _ClassVar[PushResult]
    DUPLICATE: _ClassVar[PushResult]
    LATE: _ClassVar[PushResult]
FORMAT_UNSPECIFIED: Format
FLOAT32: Format
BFLOAT16: Format
INT8: Format
TOPK: Format
PUSH_RESULT_UNSPECIFIED: PushResult
ACCEPTED: PushResult
DUPLICATE: PushResult
LATE: PushResult

class BlockHeader(_message.Message):
    __slots__ = ("protocol_version", "job_id", "generation", "step", "part_begin", "part_end", "begin", "end", "format", "version", "sender")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PART_BEGIN_FIELD_NUMBER: _ClassVar[int]
    PART_END_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_id: str
    generation: int
    step: int
    part_begin: int
    part_end: int
    begin: int
    end: int
    format: Format
    version: int
    sender: int
    def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., generation: _Optional[int] = ..., step: _Optional[int] = ..., part_begin: _Optional[int] = ..., part_end: _Optional[int] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ..., format: _Optional[_Union[Format, str]] = ..., version: _Optional[int] = ..., sender: _Optional[int] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("header", "data", "number", "checksum")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    header: BlockHeader
    data: bytes
    number: int
    checksum: int
    def __init__(self, header: _Optional[_Union[BlockHeader, _Mapping]] = ..., data: _Optional[bytes] = ..., number: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("result", "step", "part_begin", "part_end", "version", "number", "checksum")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PART_BEGIN_FIELD_NUMBER: _ClassVar[int]
    PART_END_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    result: PushResult
    step: int
    part_begin: int
    part_end: int
    version: int
    number: int
    checksum: int
    def __init__(self, result: _Optional[_Union[PushResult, str]] = ..., step: _Optional[int] = ..., part_begin: _Optional[int] = ..., part_end: _Optional[int] = ..., version: _Optional[int] = ..., number: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("protocol_version", "job_id", "generation")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_id: str
    generation: int
    def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("protocol_version", "job_id", "generation")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_id: str
    generation: int
    def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("protocol_version",)
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    def __init__(self, protocol_version: _Optional[int] = ...) -> None: ...

class TensorStatus(_message.Message):
    __slots__ = ("name", "shape", "begin", "end")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    begin: int
    end: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("address", "begin", "end")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    address: str
    begin: int
    end: int
    def __init__(self, address: _Optional[str] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("protocol_version", "job_id", "generation", "host", "version", "steps", "microbatches", "consistency", "gradients", "parameters", "size", "block_elements_max", "tensors", "shards")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    MICROBATCHES_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_ELEMENTS_MAX_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    job_id: str
    generation: int
    host: int
    version: int
    steps: int
    microbatches: int
    consistency: str
    gradients: Format
    parameters: Format
    size: int
    block_elements_max: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorStatus]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    def __init__(self, protocol_version: _Optional[int] = ..., job_id: _Optional[str] = ..., generation: _Optional[int] = ..., host: _Optional[int] = ..., version: _Optional[int] = ..., steps: _Optional[int] = ..., microbatches: _Optional[int] = ..., consistency: _Optional[str] = ..., gradients: _Optional[_Union[Format, str]] = ..., parameters: _Optional[_Union[Format, str]] = ..., size: _Optional[int] = ..., block_elements_max: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorStatus, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ...) -> None: ...
