"""`ciar serve` and `ciar health`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from ciar.cloud_server.logs import configure_logging
from ciar.cloud_server.settings import Settings
from ciar.shared.errors import CiarError

_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""Where to find, on the same machine, a server that listens everywhere."""


def serve(
    address: Annotated[str | None, typer.Option(help="host:port to listen on; port 0 takes a free one.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle; the embedded one if not given.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of a model pass; 0 leaves it to torch.")] = None,
    max_sessions: Annotated[int | None, typer.Option(help="Pictures in the making at a time.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console.")] = None,
) -> None:
    """Serve a bundle's cloud model over gRPC. Every setting is also an environment variable: CIAR_ADDRESS, …"""
    from ciar.cloud_server.server import run  # torch loads only now

    flags: dict[str, Any] = {
        "address": address,
        "bundle": bundle,
        "device": device,
        "threads": threads,
        "max_sessions": max_sessions,
        "log_format": log_format,
    }
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
        configure_logging(settings.log_level, settings.log_format)
        run(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or error.title  # a rule of the whole has no field
        _fail(f"{field}: {problem['msg']} (got {problem['input']!r})")
    except (CiarError, OSError) as error:
        _fail(str(error))


def health(
    address: Annotated[str | None, typer.Option(help="host:port of the server; $CIAR_ADDRESS if not given.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 3.0,
) -> None:
    """Exit 0 if the server reports SERVING, else 1 (for container health checks)."""
    host, _, port = (address or Settings().address).rpartition(":")
    address = f"{_LOOPBACKS.get(host, host)}:{port}"
    try:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    except grpc.RpcError as error:
        typer.echo(f"{address}: {error.code().name}")
        raise typer.Exit(1) from error
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    typer.echo(status)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(1)


def _fail(sentence: str) -> None:
    typer.echo(f"ciar: {sentence}", err=True)
    raise typer.Exit(2)
