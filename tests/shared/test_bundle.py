"""A bundle that is not whole is refused, by name of what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciar.shared.bundle import load_manifest, parse_manifest, sha256_of
from ciar.shared.errors import InvalidRequest, PairMismatch


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_whole_bundle_loads(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    assert manifest.num_tokens == 36
    assert set(manifest.device_files()) == {"drafter.onnx", "decoder.onnx"}
    assert manifest.device_digests() == {name: sha256_of(bundle / name) for name in ("drafter.onnx", "decoder.onnx")}
    assert manifest.defaults.guidance == 1.5
    assert manifest.defaults.top_p == 1.0


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == digest


@pytest.mark.parametrize("name", ["cloud.safetensors", "drafter.onnx"])
def test_a_changed_file_is_named(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1  # same size
    (bundle / name).write_bytes(data)
    with pytest.raises(PairMismatch, match=name):
        load_manifest(bundle)
    assert load_manifest(bundle, check_files=False).name == "tiny"


def test_a_cut_file_is_named(bundle: Path) -> None:
    path = bundle / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PairMismatch, match=r"decoder\.onnx"):
        load_manifest(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "captions.json").unlink()
    with pytest.raises(PairMismatch, match=r"captions\.json is missing"):
        load_manifest(bundle)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no manifest\.json in .*give the folder"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("format", lambda m: m.update(format=2)),
        ("vocab_size", lambda m: m.update(vocab_size=1)),
        ("grid_width", lambda m: m.pop("grid_width")),
        ("surprise", lambda m: m.update(surprise=1)),
        ("defaults.top_p", lambda m: m["defaults"].update(top_p=0)),
        ("defaults.guidance", lambda m: m["defaults"].update(guidance=0.5)),
        ("uncertainty_quantiles", lambda m: m.update(uncertainty_quantiles=[0.5])),
        ("files.decoder.onnx.sha256", lambda m: m["files"]["decoder.onnx"].update(sha256="ABC")),
        ("files.decoder.onnx.role", lambda m: m["files"]["decoder.onnx"].update(role="both")),
        ("files.decoder.onnx.size_bytes", lambda m: m["files"]["decoder.onnx"].update(size_bytes=0)),
    ],
)
def test_a_bad_manifest_names_file_and_field(
    bundle: Path, field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    change_manifest(bundle, change)
    with pytest.raises(InvalidRequest) as caught:
        load_manifest(bundle)
    assert str(bundle / "manifest.json") in str(caught.value)
    assert f" {field}: " in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"manifest"'])
def test_what_is_no_manifest_names_its_source(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^the server's manifest: document: "):
        parse_manifest(text, "the server's manifest")
