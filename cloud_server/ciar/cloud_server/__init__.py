"""The CIAR cloud service: the full autoregressive image model behind a gRPC contract."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""ONNX Runtime reads it at import; who wants its telemetry sets the variable to 0."""
