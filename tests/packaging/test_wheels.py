"""What the two wheels hold, and what they do to an environment and to the program of somebody else that uses them."""

from __future__ import annotations

import json
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.support.environments import CLOUD_PARTS, DEVICE_PARTS, copy_repository, run_outside

DEVICE_SIZE_BYTES = 1_000_000
WEIGHTS = {".safetensors", ".onnx", ".npz", ".npy", ".pt", ".bin", ".png"}

APP = """
import sys
from ciar.device_client import Client, LocalServer
import shared                                   # the app's own
assert shared.ANSWER == 42
with LocalServer(arguments=("--max-sessions", "1")) as server, Client(server.address) as client:
    client.generate(sys.argv[1], seed=7).image.save("picture.png")
"""


class Wheels(NamedTuple):
    """Files of the two distributions."""

    device: Path
    cloud: Path


class Environment(NamedTuple):
    """A virtual environment."""

    python: Path
    site_packages: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        venv.create(folder, with_pip=True)
        return cls(folder / "bin" / "python", next(folder.glob("lib/python3*/site-packages")))

    def names(self) -> set[str]:
        """Top-level names. pip leaves the empty folder of a namespace behind, which Python takes for nothing."""
        paths = [path for path in self.site_packages.iterdir() if path.name != "__pycache__"]
        return {path.name for path in paths if not path.is_dir() or any(path.iterdir())}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Both, built as a release builds them but without the way over a source distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    source = copy_repository(folder / "source", (*DEVICE_PARTS, *CLOUD_PARTS))
    projects = (source, source / "cloud_server")
    run_outside(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, *projects, cwd=folder)
    return Wheels(*(next(folder.glob(f"{name}-*.whl")) for name in ("ciar", "ciar_cloud")))


@pytest.fixture(scope="module")
def both(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Both wheels in an environment that borrows torch and all else from this one's.

    A `.pth` file adds this one's site-packages as a plain folder: `.pth` files in there, such as those of an editable
    install of this very project, are not read. At the end both are removed, and nothing may be left.
    """
    environment = Environment.create(tmp_path_factory.mktemp("both") / "venv")
    before = environment.names()
    run_outside(environment.python, "-m", "pip", "install", "--quiet", "--no-deps", *wheels, cwd=wheels.device.parent)
    assert {name for name in environment.names() - before if not name.endswith(".dist-info")} == {"ciar"}
    (environment.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    yield environment
    removal = ("uninstall", "--quiet", "--yes", "ciar-cloud", "ciar")
    run_outside(environment.python, "-m", "pip", *removal, cwd=wheels.device.parent)
    assert environment.names() - before == {"borrowed.pth"}, "nothing is left under ciar/"


def contents(wheel: Path) -> dict[str, int]:
    """Path -> bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


def test_both_bring_one_name_and_share_no_file(wheels: Wheels) -> None:
    device, cloud = contents(wheels.device), contents(wheels.cloud)
    for files in (device, cloud):
        assert {name.partition("/")[0] for name in files if ".dist-info/" not in name} == {"ciar"}
        assert "ciar/__init__.py" not in files, "a namespace: neither may own it"
        assert any(name.endswith(".dist-info/entry_points.txt") for name in files) == (files is device)
    assert not device.keys() & cloud.keys()


def test_the_devices_wheel_is_small_and_holds_no_server_and_no_weights(wheels: Wheels) -> None:
    files = contents(wheels.device)
    assert {name.split("/")[1] for name in files if name.startswith("ciar/")} == {"shared", "device_client", "v1"}
    assert not [name for name in files if Path(name).suffix in WEIGHTS]
    assert sum(files.values()) <= DEVICE_SIZE_BYTES
    assert {"ciar/v1/service.proto", "ciar/shared/py.typed", "ciar/device_client/py.typed"} <= files.keys()
    assert [name for name in files if name.endswith("licenses/LICENSE")]


def test_the_clouds_wheel_holds_its_members_and_the_pair(wheels: Wheels) -> None:
    files = contents(wheels.cloud)
    members = {name.split("/")[1] for name in files if name.startswith("ciar/")}
    assert members == {"cloud_server", "training", "benchmarks", "bundles"}
    manifest = json.loads(zipfile.Path(wheels.cloud, "ciar/bundles/icons/manifest.json").read_text(encoding="utf-8"))
    assert {f"ciar/bundles/icons/{name}" for name in manifest["files"]} <= files.keys()
    assert not [name for name in files if "/tests/" in name or name.endswith(".pyc")]


def test_the_device_alone_leaves_nothing_behind(wheels: Wheels, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "venv")
    before = environment.names()
    run_outside(environment.python, "-m", "pip", "install", "--quiet", "--no-deps", wheels.device, cwd=tmp_path)
    brought = environment.names() - before
    assert brought == {"ciar", next(name for name in brought if name.endswith(".dist-info"))}
    run_outside(environment.python, "-m", "pip", "uninstall", "--quiet", "--yes", "ciar", cwd=tmp_path)
    assert environment.names() == before


def test_the_pair_is_found_as_a_resource(both: Environment, tmp_path: Path) -> None:
    code = "import importlib.resources as r; print(r.files('ciar.bundles') / 'icons' / 'manifest.json')"
    found = Path(run_outside(both.python, "-c", code, cwd=tmp_path).strip())
    assert found.is_file()
    assert found.is_relative_to(both.site_packages), "the installed one, not the checkout's"


@pytest.mark.parametrize("shadows", [(), ("queue.py", "secrets.py")], ids=["shared", "shared, queue and secrets"])
def test_an_app_with_names_of_its_own_draws_a_picture(
    both: Environment, tmp_path: Path, shadows: tuple[str, ...]
) -> None:
    """A folder with `shared/` is an app like any other. One with a `queue.py` shadows the standard library's unless it
    is started with `python -P`; the server that it starts must not find them in either case.
    """
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text("ANSWER = 42\n", encoding="utf-8")
    for name in shadows:
        (tmp_path / name).write_text("raise ImportError('the app\\'s own was taken')\n", encoding="utf-8")
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    captions = both.site_packages / "ciar" / "bundles" / "icons" / "captions.json"
    prompt = json.loads(captions.read_text(encoding="utf-8"))["examples"][0]
    safe = ("-P", "-c", f"import sys; sys.path.append({str(tmp_path)!r}); import app") if shadows else ("app.py",)
    run_outside(both.python, *safe, prompt, cwd=tmp_path, CIAR_CACHE=str(tmp_path / "cache"))
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 0
