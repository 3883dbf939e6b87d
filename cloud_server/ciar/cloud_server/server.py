"""The server process: puts bundle, engine and service together, serves until told to stop, then drains."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import signal
from collections.abc import Callable
from functools import partial

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ciar.cloud_server.admission import Admission
from ciar.cloud_server.engine import Engine, Runner
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.cloud_server.service import CiarServicer
from ciar.cloud_server.session import Session
from ciar.cloud_server.settings import Settings
from ciar.cloud_server.window import WindowPolicy
from ciar.shared.bundle import MANIFEST, digest_of, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CiarService"].full_name


Mount = Callable[[grpc.aio.Server, "CloudServer"], None]
"""Adds services to a server that is about to start."""


class CloudServer:
    """One server: `start`, then `stop`; `address` is known once started."""

    def __init__(self, settings: Settings, *, runner: Runner | None = None, mount: Mount | None = None) -> None:
        """runner: in place of one of the bundle's cloud model; mount: adds services before the server starts.

        Raises InvalidRequest for a bundle or a device that is not there, PairMismatch for files that do not fit.
        """
        self.settings = settings
        if settings.device.startswith("cuda") and not torch.cuda.is_available():
            raise InvalidRequest(f"device: {settings.device} is not available here; use cpu, or a build with CUDA")
        self.manifest = manifest = load_manifest(settings.bundle)
        manifest_json = (settings.bundle / MANIFEST).read_text(encoding="utf-8")
        self.runner = runner or _load_runner(settings)
        self._mount = mount
        self.engine = Engine(self.runner, max_pass_rows=settings.max_pass_rows)
        self.admission = Admission(
            manifest,
            CaptionVocabulary.load(settings.bundle / "captions.json"),
            settings.limits,
            bundle_digest=digest_of(manifest_json),
            max_sessions=settings.max_sessions,
            retry_after_ms=settings.retry_after_ms,
        )
        self._servicer = CiarServicer(
            bundle=settings.bundle,
            manifest=manifest,
            manifest_json=manifest_json,
            limits=settings.limits,
            admission=self.admission,
            engine=self.engine,
            make_session=partial(
                Session,
                num_tokens=manifest.num_tokens,
                vocab_size=manifest.vocab_size,
                chunk=manifest.grid_width,
                limits=settings.limits,
                policy=WindowPolicy(),
            ),
            version=importlib.metadata.version("ciar"),
            idle_timeout_s=settings.idle_timeout_s,
            session_timeout_s=settings.session_timeout_s,
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # grpc-stubs leaves it out
        self.address = ""

    async def start(self) -> None:
        """Bind, serve, and report SERVING. Raises InvalidRequest if the address cannot be bound."""
        settings = self.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ]
        )
        pb_grpc.add_CiarServiceServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        if self._mount is not None:
            self._mount(self._server, self)
        host = settings.address.rpartition(":")[0]
        try:
            port = self._server.add_insecure_port(settings.address)
        except RuntimeError as exc:
            raise InvalidRequest(f"address: cannot listen on {settings.address}; is the port taken?") from exc
        self.engine.start()
        await self._server.start()
        self.address = f"{host}:{port}"
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        logger.info("serving", extra={"address": self.address, "bundle": str(settings.bundle)})

    async def stop(self) -> None:
        """Refuse new pictures, let running ones end within `drain_s`, then stop."""
        logger.info("draining", extra={"sessions": self.admission.num_sessions})
        self.admission.drain()
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(self.settings.drain_s)
        await asyncio.to_thread(self.engine.stop)
        logger.info("stopped")

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE_NAME):
            await self._health.set(service, status)


def _load_runner(settings: Settings) -> ModelRunner:
    model = load_transformer(settings.bundle).to(settings.device)
    return ModelRunner(model, settings.max_sessions, settings.threads)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; prints `serving on HOST:PORT` on standard output when ready."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    serve(CloudServer(settings))


def serve(server: CloudServer) -> None:
    """What `run` does, for a server that is made."""
    asyncio.run(_run(server))


async def _run(server: CloudServer) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await server.start()
    print(f"serving on {server.address}", flush=True)
    await stop.wait()
    await server.stop()
