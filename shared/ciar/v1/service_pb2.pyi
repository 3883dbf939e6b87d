from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verify(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERIFY_UNSPECIFIED: _ClassVar[Verify]
    VERIFY_ALL: _ClassVar[Verify]
    VERIFY_MARKED: _ClassVar[Verify]
VERIFY_UNSPECIFIED: Verify
VERIFY_ALL: Verify
VERIFY_MARKED: Verify

class Sampling(_message.Message):
    __slots__ = ("seed", "temperature", "top_k", "top_p", "guidance")
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    seed: int
    temperature: float
    top_k: int
    top_p: float
    guidance: float
    def __init__(self, seed: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., guidance: _Optional[float] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("forward_ns", "queue_ns", "num_passes", "num_rows")
    FORWARD_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    NUM_PASSES_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    forward_ns: int
    queue_ns: int
    num_passes: int
    num_rows: int
    def __init__(self, forward_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., num_passes: _Optional[int] = ..., num_rows: _Optional[int] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("manifest_json", "server_version", "limits", "capabilities")
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    manifest_json: str
    server_version: str
    limits: Limits
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, manifest_json: _Optional[str] = ..., server_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_window", "max_in_flight", "idle_timeout_ms", "max_prompt_bytes")
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_window: int
    max_in_flight: int
    idle_timeout_ms: int
    max_prompt_bytes: int
    def __init__(self, max_window: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., max_prompt_bytes: _Optional[int] = ...) -> None: ...

class GetArtifactRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetArtifactResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("open", "draft", "finish")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    open: Open
    draft: Draft
    finish: Finish
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., draft: _Optional[_Union[Draft, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("opened", "verdict", "summary")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    verdict: Verdict
    summary: Summary
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("prompt", "sampling", "bundle_digest", "verify", "num_prefix_tokens", "max_window", "history")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    NUM_PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    sampling: Sampling
    bundle_digest: str
    verify: Verify
    num_prefix_tokens: int
    max_window: int
    history: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, prompt: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., bundle_digest: _Optional[str] = ..., verify: _Optional[_Union[Verify, str]] = ..., num_prefix_tokens: _Optional[int] = ..., max_window: _Optional[int] = ..., history: _Optional[_Iterable[int]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id", "condition")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    condition: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., condition: _Optional[_Iterable[int]] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("seq", "start", "tokens", "verify_mask", "num_verdicts")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_MASK_FIELD_NUMBER: _ClassVar[int]
    NUM_VERDICTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    verify_mask: bytes
    num_verdicts: int
    def __init__(self, seq: _Optional[int] = ..., start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., verify_mask: _Optional[bytes] = ..., num_verdicts: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("applied_seq", "start", "tokens", "num_verified", "near_ties", "cost", "waiting")
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    applied_seq: int
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    num_verified: int
    near_ties: _containers.RepeatedScalarFieldContainer[int]
    cost: Cost
    waiting: bool
    def __init__(self, applied_seq: _Optional[int] = ..., start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., num_verified: _Optional[int] = ..., near_ties: _Optional[_Iterable[int]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., waiting: bool = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Summary(_message.Message):
    __slots__ = ("cost", "num_drafts", "num_forks", "num_verified", "num_rejections")
    COST_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAFTS_FIELD_NUMBER: _ClassVar[int]
    NUM_FORKS_FIELD_NUMBER: _ClassVar[int]
    NUM_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    NUM_REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    cost: Cost
    num_drafts: int
    num_forks: int
    num_verified: int
    num_rejections: int
    def __init__(self, cost: _Optional[_Union[Cost, _Mapping]] = ..., num_drafts: _Optional[int] = ..., num_forks: _Optional[int] = ..., num_verified: _Optional[int] = ..., num_rejections: _Optional[int] = ...) -> None: ...
