"""One picture, measured: what the journal keeps of it, and how it is taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from time import perf_counter
from typing import Any, NamedTuple

from ciar.benchmarks.methods import Method, Setting
from ciar.benchmarks.waits import TimedTransport
from ciar.device_client import Client, Decision, Progress


class Task(NamedTuple):
    """A picture to be drawn."""

    profile: str
    method: str
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds, counts and bytes of one picture.

    network, cloud, drafting and other are what `seconds` is spent on; what they leave is the residual, and small.
    """

    profile: str
    method: str
    prompt: str
    seed: int
    seconds: float
    """From the call to the picture."""
    preview_s: float
    """Until the first tokens are final, so that something can be shown."""
    network_s: float
    """Waiting, and not because the cloud computed (see `waits`)."""
    cloud_s: float
    """Waiting while the cloud computed."""
    drafting_s: float
    messages_s: float
    """Encoding and queueing frames, opening and closing streams."""
    bookkeeping_s: float
    """The rest of the time while the stream was open: the gate, and the loop itself."""
    pixels_s: float
    setup_s: float
    """Until the first frame is sent."""
    cloud_compute_s: float
    """Model passes of the cloud, overlapped with the device's work or not."""
    num_passes: int
    """How many of them."""
    num_rows: int
    """Input rows of one sequence, in all passes."""
    num_requests: int
    num_forks: int
    num_discarded: int
    num_resumptions: int
    num_near_ties: int
    num_verified: int
    """Tokens of the picture that the cloud verified behind a draft."""
    num_rejections: int
    """Of these, those that the cloud resampled."""
    num_local: int
    """Tokens that the device decided alone."""
    bytes_up: int
    """Serialized messages, without HTTP/2; of the cloud alone, the one request is not counted."""
    bytes_down: int
    tokens: tuple[int, ...]

    @property
    def task(self) -> Task:
        return Task(self.profile, self.method, self.prompt, self.seed)

    @property
    def other_s(self) -> float:
        """The device's own work but drafting."""
        return self.messages_s + self.bookkeeping_s + self.pixels_s + self.setup_s

    @property
    def residual_s(self) -> float:
        """What no part explains: time outside any stream, such as pauses between attempts."""
        return self.seconds - self.network_s - self.cloud_s - self.drafting_s - self.other_s

    @property
    def overlap_s(self) -> float:
        """The time of perfect overlap: the longer one of the device's own work and the cloud's passes."""
        return max(self.seconds - self.network_s - self.cloud_s, self.cloud_compute_s)

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self) | {"tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """What `to_dict` wrote. Raises KeyError for a field that is missing."""
        return cls(**{f.name: values[f.name] for f in fields(cls)} | {"tokens": tuple(values["tokens"])})


def measure(
    client: Client, transport: TimedTransport, method: Method, task: Task, setting: Setting, *, timeout_s: float
) -> Measurement:
    """Draw one picture and say where the time went. Raises what `Client.generate` raises.

    client: over `transport`, and used by nobody else meanwhile.
    """
    first_final: list[float] = []

    def note(progress: Progress) -> None:
        if progress.num_committed and not first_final:
            first_final.append(perf_counter())

    transport.take()
    began = perf_counter()
    result = method.draw(client, task.prompt, task.seed, setting, timeout_s=timeout_s, on_progress=note)
    seconds = perf_counter() - began
    waits, timings, traffic = transport.take(), result.timings, result.traffic
    return Measurement(
        *task,
        seconds=seconds,
        preview_s=first_final[0] - began if first_final else seconds,
        network_s=waits.network_s,
        cloud_s=waits.cloud_s,
        drafting_s=timings.drafting_s,
        messages_s=waits.messages_s,
        bookkeeping_s=waits.stream_s - waits.network_s - waits.cloud_s - waits.messages_s - timings.drafting_s,
        pixels_s=timings.decoding_s,
        setup_s=timings.setup_s,
        cloud_compute_s=result.cost.forward_ns / 1e9,
        num_passes=result.cost.num_passes,
        num_rows=result.cost.num_rows,
        num_requests=traffic.num_requests,
        num_forks=traffic.num_forks,
        num_discarded=traffic.num_discarded,
        num_resumptions=traffic.num_resumptions,
        num_near_ties=len(result.near_ties),
        num_verified=result.decisions.count(Decision.ACCEPTED) + result.decisions.count(Decision.RESAMPLED),
        num_rejections=result.decisions.count(Decision.RESAMPLED),
        num_local=result.decisions.count(Decision.LOCAL),
        bytes_up=traffic.bytes_up,
        bytes_down=traffic.bytes_down,
        tokens=result.tokens,
    )
