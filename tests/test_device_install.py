"""A device alone: the package with the `device` extra, in an empty environment without torch, against a real server."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ciar.shared.bundle import embedded_bundle
from tests.support.environments import DEVICE_PARTS, REPOSITORY, copy_repository, run_outside
from tests.support.server_process import ServerProcess

BUNDLE = embedded_bundle()

IMPORT_EVERYTHING = """
import importlib, importlib.metadata, json, pkgutil, sys
names = []
for root in ("ciar.shared", "ciar.device_client", "ciar.v1"):
    package = importlib.import_module(root)
    names += [root, *(found.name for found in pkgutil.walk_packages(package.__path__, root + "."))]
for name in names:
    importlib.import_module(name)
print(json.dumps({
    "modules": names,
    "where": package.__path__[0],
    "loaded": sorted(sys.modules),
    "installed": sorted(d.metadata["Name"].lower() for d in importlib.metadata.distributions()),
}))
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a new environment that holds the project with the device's extra, as pip resolves it."""
    folder = tmp_path_factory.mktemp("device")
    source = copy_repository(folder / "source", DEVICE_PARTS)
    venv.create(folder / "venv", with_pip=True)
    executables = folder / "venv" / "bin"
    constraints = REPOSITORY / "constraints.txt"
    run_outside(executables / "pip", "install", "--quiet", "--constraint", constraints, f"{source}[cli]", cwd=folder)
    return executables


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess("--bundle", str(BUNDLE))
    process.start()
    yield process
    process.terminate()


def test_it_brings_no_torch_and_every_module_can_be_imported(device: Path, tmp_path: Path) -> None:
    found = json.loads(run_outside(device / "python", "-c", IMPORT_EVERYTHING, cwd=tmp_path))
    assert Path(found["where"]).is_relative_to(device.parent), "the installed package, not the checkout"
    assert {"ciar.shared.cli", "ciar.device_client.cli", "ciar.device_client.client"} <= set(found["modules"])
    assert "onnxruntime" in found["installed"]
    assert not {"torch", "transformers", "safetensors"} & {*found["installed"], *found["loaded"]}
    assert not {name for name in found["loaded"] if name.startswith("ciar.cloud_server")}


def test_it_draws_a_picture(device: Path, server: ServerProcess, tmp_path: Path) -> None:
    prompt = json.loads((BUNDLE / "captions.json").read_text(encoding="utf-8"))["examples"][0]
    manifest = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
    output = tmp_path / "picture.png"
    line = run_outside(
        *(device / "ciar", "generate", prompt, "--server", server.address, "--seed", "7", "--output", output, "--json"),
        cwd=tmp_path,
        CIAR_CACHE=str(tmp_path / "cache"),
    )
    with Image.open(output) as image:
        assert image.size == (manifest["image_width"], manifest["image_height"])
    result = json.loads(line)
    assert len(result["tokens"]) == manifest["grid_height"] * manifest["grid_width"]
    assert "local" in result["decisions"], "the device decided some of it"


def test_a_command_of_the_cloud_says_what_to_install(device: Path, tmp_path: Path) -> None:
    result = subprocess.run([device / "ciar", "serve"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'ciar-cloud'" in result.stderr
