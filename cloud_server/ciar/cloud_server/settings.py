"""Settings of the server, read once from the environment (CIAR_…) and flags; below here only values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ciar.shared.bundle import embedded_bundle
from ciar.shared.types import Limits

EMBEDDED_BUNDLE = embedded_bundle()


class Settings(BaseSettings):
    """Every value can be set as an environment variable: CIAR_ADDRESS, CIAR_BUNDLE, …"""

    model_config = SettingsConfigDict(env_prefix="CIAR_", frozen=True)

    address: Annotated[str, NoDecode] = Field(default="127.0.0.1:50051", pattern=r"^.+:\d+$")
    """host:port to listen on; port 0 takes a free one."""
    bundle: Path = EMBEDDED_BUNDLE
    """Folder of the bundle to serve."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """Where the cloud model runs."""
    threads: int = Field(default=0, ge=0)
    """Threads of one model pass; 0 leaves it to torch."""
    max_sessions: int = Field(default=16, ge=1)
    """Pictures in the making at a time; each holds a KV-cache slot. More get RESOURCE_EXHAUSTED."""
    max_pass_rows: int = Field(default=2048, ge=1)
    """Input rows of one pass before further sessions wait for the next."""
    max_window: int = Field(default=64, ge=1, le=4096)
    """Most positions that one pass verifies for one picture."""
    max_in_flight: int = Field(default=64, ge=1)
    max_prompt_bytes: int = Field(default=1024, ge=1)
    max_message_bytes: int = Field(default=1 << 20, ge=1024)
    idle_timeout_s: float = Field(default=30, gt=0)
    """A device that owes a frame for so long loses its session."""
    session_timeout_s: float = Field(default=600, gt=0)
    """Longest life of one picture."""
    retry_after_ms: int = Field(default=1000, ge=1)
    """Hint to a device that finds the server full."""
    drain_s: float = Field(default=20, ge=0)
    """After SIGTERM, how long running pictures may still take."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @property
    def limits(self) -> Limits:
        """What the device is told."""
        return Limits(self.max_window, self.max_in_flight, int(self.idle_timeout_s * 1000), self.max_prompt_bytes)
