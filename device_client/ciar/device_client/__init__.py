"""The device's half of CIAR: drafts tokens, decides the sure ones, has a cloud verify the others.

from ciar.device_client import Client

with Client("localhost:50051") as client:
    client.generate("red filled heart on cream", seed=7).image.save("heart.png")
"""

# ONNX Runtime reads the variable when it is imported; who wants its telemetry sets it to 0.
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from ciar.device_client.client import Client, Progress
from ciar.device_client.gates import (
    CalibratedThreshold,
    CertifiedBudget,
    FixedThreshold,
    Gate,
    NearbyThreshold,
    RunningQuantile,
    Scores,
    VerifyAll,
    VerifyNone,
    make_gate,
)
from ciar.device_client.heatmap import heatmap
from ciar.device_client.local_server import LocalServer
from ciar.device_client.result import Decision, Mode, Result, Timings, Traffic
from ciar.device_client.transport import GrpcTransport, Session, Transport
from ciar.device_client.waiting import RetryPolicy
from ciar.shared.errors import (
    Busy,
    CiarError,
    InternalError,
    InvalidRequest,
    NotFound,
    PairMismatch,
    ProtocolError,
    TimedOut,
    Unavailable,
)

__all__ = [
    "Busy",
    "CalibratedThreshold",
    "CertifiedBudget",
    "CiarError",
    "Client",
    "Decision",
    "FixedThreshold",
    "Gate",
    "GrpcTransport",
    "InternalError",
    "InvalidRequest",
    "LocalServer",
    "Mode",
    "NearbyThreshold",
    "NotFound",
    "PairMismatch",
    "Progress",
    "ProtocolError",
    "Result",
    "RetryPolicy",
    "RunningQuantile",
    "Scores",
    "Session",
    "TimedOut",
    "Timings",
    "Traffic",
    "Transport",
    "Unavailable",
    "VerifyAll",
    "VerifyNone",
    "heatmap",
    "make_gate",
]
