"""The cache of device files: fetched once, checked always."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ciar.device_client.artifacts import ArtifactCache, default_cache
from ciar.shared.errors import InvalidRequest, PairMismatch, Unavailable
from tests.device_client.tiny_graphs import make_manifest

FILES = {"drafter.onnx": b"drafter" * 100, "decoder.onnx": b"decoder"}


class Server:
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, []

    def __call__(self, name: str) -> Iterator[bytes]:
        self.asked.append(name)
        yield from (self.files[name][i : i + 64] for i in range(0, len(self.files[name]), 64))


def test_files_are_fetched_once(tmp_path: Path) -> None:
    cache, server = ArtifactCache(tmp_path / "new" / "cache"), Server(FILES)
    for _ in range(2):
        paths = cache.device_files(make_manifest(FILES), server)
        assert {name: path.read_bytes() for name, path in paths.items()} == FILES
    assert sorted(server.asked) == sorted(FILES)


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    cache, server = ArtifactCache(tmp_path), Server(FILES)
    cache.device_files(make_manifest(FILES), server)["decoder.onnx"].write_bytes(b"damaged")
    assert cache.device_files(make_manifest(FILES), server)["decoder.onnx"].read_bytes() == b"decoder"
    assert server.asked.count("decoder.onnx") == 2


@pytest.mark.parametrize("sent", [b"another", b"short", b"longer than that"])
def test_another_file_than_the_manifests_is_refused_and_not_kept(tmp_path: Path, sent: bytes) -> None:
    with pytest.raises(PairMismatch, match=r"^decoder\.onnx: "):
        ArtifactCache(tmp_path).device_files(
            make_manifest({"decoder.onnx": b"decoder"}), Server({"decoder.onnx": sent})
        )
    assert not list(tmp_path.iterdir())


def test_a_broken_fetch_leaves_nothing(tmp_path: Path) -> None:
    def fetch(name: str) -> Iterator[bytes]:
        yield b"dec"
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        ArtifactCache(tmp_path).device_files(make_manifest({"decoder.onnx": b"decoder"}), fetch)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"^cache: .*CIAR_CACHE"):
        ArtifactCache(tmp_path / "file" / "cache").device_files(make_manifest(FILES), Server(FILES))


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIAR_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("CIAR_CACHE")
    assert default_cache().parts[-2:] == (".cache", "ciar")
