"""The CIAR cloud service: the full autoregressive image model behind a gRPC contract."""
