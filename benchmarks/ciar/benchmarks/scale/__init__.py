"""Latency at the paper's scale: real processes and networks, LlamaGen's shape, replayed decisions, random weights."""
