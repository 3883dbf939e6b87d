from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("forward_ns", "queue_ns", "num_passes")
    FORWARD_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    NUM_PASSES_FIELD_NUMBER: _ClassVar[int]
    forward_ns: int
    queue_ns: int
    num_passes: int
    def __init__(self, forward_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., num_passes: _Optional[int] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("start", "tokens", "asked_mask", "featured_mask", "features", "laws")
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ASKED_MASK_FIELD_NUMBER: _ClassVar[int]
    FEATURED_MASK_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LAWS_FIELD_NUMBER: _ClassVar[int]
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    asked_mask: bytes
    featured_mask: bytes
    features: bytes
    laws: bytes
    def __init__(self, start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., asked_mask: _Optional[bytes] = ..., featured_mask: _Optional[bytes] = ..., features: _Optional[bytes] = ..., laws: _Optional[bytes] = ...) -> None: ...

class Acceptance(_message.Message):
    __slots__ = ("classic", "lantern")
    CLASSIC_FIELD_NUMBER: _ClassVar[int]
    LANTERN_FIELD_NUMBER: _ClassVar[int]
    classic: Classic
    lantern: Lantern
    def __init__(self, classic: _Optional[_Union[Classic, _Mapping]] = ..., lantern: _Optional[_Union[Lantern, _Mapping]] = ...) -> None: ...

class Classic(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Lantern(_message.Message):
    __slots__ = ("num_neighbours", "max_mass")
    NUM_NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    MAX_MASS_FIELD_NUMBER: _ClassVar[int]
    num_neighbours: int
    max_mass: float
    def __init__(self, num_neighbours: _Optional[int] = ..., max_mass: _Optional[float] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("manifest_json", "server_version", "limits")
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    manifest_json: str
    server_version: str
    limits: Limits
    def __init__(self, manifest_json: _Optional[str] = ..., server_version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_block_tokens", "max_in_flight", "idle_timeout_ms", "max_prompt_bytes")
    MAX_BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_block_tokens: int
    max_in_flight: int
    idle_timeout_ms: int
    max_prompt_bytes: int
    def __init__(self, max_block_tokens: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., max_prompt_bytes: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("prompt", "sampling", "resume_tokens")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    sampling: Sampling
    resume_tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, prompt: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., resume_tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("start", "tokens", "near_ties", "cost")
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    near_ties: _containers.RepeatedScalarFieldContainer[int]
    cost: Cost
    def __init__(self, start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., near_ties: _Optional[_Iterable[int]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ...) -> None: ...

class CollaborateRequest(_message.Message):
    __slots__ = ("open", "draft", "finish", "tree")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    open: Open
    draft: Draft
    finish: Finish
    tree: TreeDraft
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., draft: _Optional[_Union[Draft, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., tree: _Optional[_Union[TreeDraft, _Mapping]] = ...) -> None: ...

class CollaborateResponse(_message.Message):
    __slots__ = ("opened", "prefix", "verdict", "summary")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    prefix: Prefix
    verdict: Verdict
    summary: Summary
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., prefix: _Optional[_Union[Prefix, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("prompt", "sampling", "num_prefix_tokens", "file_digests", "history", "acceptance", "carry_on")
    class FileDigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    NUM_PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FILE_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    CARRY_ON_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    sampling: Sampling
    num_prefix_tokens: int
    file_digests: _containers.ScalarMap[str, str]
    history: Block
    acceptance: Acceptance
    carry_on: bool
    def __init__(self, prompt: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., num_prefix_tokens: _Optional[int] = ..., file_digests: _Optional[_Mapping[str, str]] = ..., history: _Optional[_Union[Block, _Mapping]] = ..., acceptance: _Optional[_Union[Acceptance, _Mapping]] = ..., carry_on: bool = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id", "condition")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    condition: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., condition: _Optional[_Iterable[int]] = ...) -> None: ...

class Prefix(_message.Message):
    __slots__ = ("start", "tokens", "near_ties", "cost")
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    near_ties: _containers.RepeatedScalarFieldContainer[int]
    cost: Cost
    def __init__(self, start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., near_ties: _Optional[_Iterable[int]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("epoch", "block")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    block: Block
    def __init__(self, epoch: _Optional[int] = ..., block: _Optional[_Union[Block, _Mapping]] = ...) -> None: ...

class TreeDraft(_message.Message):
    __slots__ = ("epoch", "start", "tokens", "parents")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    start: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    parents: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., start: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., parents: _Optional[_Iterable[int]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("epoch", "stale", "verified_through", "correction", "near_ties", "cost", "partial")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    stale: bool
    verified_through: int
    correction: Correction
    near_ties: _containers.RepeatedScalarFieldContainer[int]
    cost: Cost
    partial: bool
    def __init__(self, epoch: _Optional[int] = ..., stale: bool = ..., verified_through: _Optional[int] = ..., correction: _Optional[_Union[Correction, _Mapping]] = ..., near_ties: _Optional[_Iterable[int]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., partial: bool = ...) -> None: ...

class Correction(_message.Message):
    __slots__ = ("position", "tokens", "next_epoch")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEXT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    position: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    next_epoch: int
    def __init__(self, position: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., next_epoch: _Optional[int] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Summary(_message.Message):
    __slots__ = ("cost", "num_prefix_tokens", "num_drafts", "num_stale_drafts", "num_asked", "num_corrections")
    COST_FIELD_NUMBER: _ClassVar[int]
    NUM_PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_DRAFTS_FIELD_NUMBER: _ClassVar[int]
    NUM_STALE_DRAFTS_FIELD_NUMBER: _ClassVar[int]
    NUM_ASKED_FIELD_NUMBER: _ClassVar[int]
    NUM_CORRECTIONS_FIELD_NUMBER: _ClassVar[int]
    cost: Cost
    num_prefix_tokens: int
    num_drafts: int
    num_stale_drafts: int
    num_asked: int
    num_corrections: int
    def __init__(self, cost: _Optional[_Union[Cost, _Mapping]] = ..., num_prefix_tokens: _Optional[int] = ..., num_drafts: _Optional[int] = ..., num_stale_drafts: _Optional[int] = ..., num_asked: _Optional[int] = ..., num_corrections: _Optional[int] = ...) -> None: ...
