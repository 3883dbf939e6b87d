"""What the device and the cloud must agree on: numpy and plain Python, never torch, never onnxruntime."""
