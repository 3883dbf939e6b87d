"""A CloudServer in a background thread with an event loop of its own, for tests that talk to it over real gRPC."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from ciar.cloud_server.server import CloudServer
from ciar.cloud_server.settings import Settings

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


class RunningCloud:
    """Serves from construction until `stop`; `address` is host:port, `server` the server itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.server = CloudServer(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cloud", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(START_TIMEOUT_S)
        self._stopping: Future[None] | None = None

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def num_sessions(self) -> int:
        """Slots in use."""
        return self.server.admission.num_sessions

    def begin_stop(self) -> Future[None]:
        """What SIGTERM does: drain, then stop. Returns at once."""
        if self._stopping is None:
            self._stopping = asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop)
        return self._stopping

    def stop(self) -> None:
        """Stop, if that has not happened yet, and end the thread. Running pictures get `drain_s`."""
        try:
            self.begin_stop().result(STOP_TIMEOUT_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_TIMEOUT_S)
            self._loop.close()
