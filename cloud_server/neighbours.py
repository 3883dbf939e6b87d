"""Build hook: a wheel of `ciar-cloud` also holds the members of `ciar` that lie beside its project folder."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Neighbours(BuildHookInterface):
    """Packs ../training, ../benchmarks and ../bundles; an editable install reads them where they are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; version: "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"] |= {f"../{name}/ciar": "ciar" for name in ("training", "benchmarks", "bundles")}
