"""The rows: known by name, made with their settings, and drawn by the SDK's own loop."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ciar.benchmarks.gates import DoubtThreshold
from ciar.benchmarks.machine import environment, on_cores, place
from ciar.benchmarks.methods import BASE, CIAR, METHODS, QUICK_METHODS, STRONGEST, Setting, find_method
from ciar.benchmarks.prompts import prompts_of
from ciar.device_client import Client, Decision, Mode, Scores
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest
from ciar.shared.types import Sampling
from tests.device_client.fakes import FakeCloud


@pytest.fixture
def cloud(manifest: Manifest, device_folder: Path) -> FakeCloud:
    return FakeCloud(manifest, {name: (device_folder / name).read_bytes() for name in manifest.files})


@pytest.fixture
def setting(manifest: Manifest) -> Setting:
    return Setting(manifest, 0.3, {name: [0.0, 0.5, 1.0] for name in METHODS})


@pytest.mark.parametrize("name", METHODS)
def test_every_row_draws_a_picture_that_is_a_function_of_its_seed(
    name: str, cloud: FakeCloud, setting: Setting, tmp_path: Path
) -> None:
    method = find_method(name)
    with Client(transport=cloud, cache_dir=tmp_path) as client:
        pictures = [method.draw(client, "prompt", seed, setting, timeout_s=60) for seed in (4, 4, 5)]
    assert pictures[0].tokens == pictures[1].tokens
    if name != "device":  # the tiny drafter is too sure of itself for noise to matter
        assert pictures[0].tokens != pictures[2].tokens
    assert pictures[0].mode is method.mode
    if name in (BASE, STRONGEST, "lossless"):
        assert pictures[0].tokens == cloud.model.picture(method_sampling(setting, 4))


def method_sampling(setting: Setting, seed: int) -> Sampling:
    defaults = setting.manifest.defaults
    return Sampling(seed=seed, guidance=defaults.guidance, temperature=defaults.temperature)


def test_code_lets_the_cloud_write_its_share_and_device_none(
    cloud: FakeCloud, setting: Setting, tmp_path: Path
) -> None:
    with Client(transport=cloud, cache_dir=tmp_path) as client:
        code = find_method("code").draw(client, "prompt", 0, setting, timeout_s=60)
        half = find_method("code:0.5").draw(client, "prompt", 0, setting, timeout_s=60)
        device = find_method("device").draw(client, "prompt", 0, setting, timeout_s=60)
    assert code.decisions.count(Decision.PREFIX) == 4  # ⌊0.3 · 16⌋
    assert half.decisions.count(Decision.PREFIX) == 8
    assert set(device.decisions) == {Decision.LOCAL}
    assert code.traffic.num_sent_to_verify == device.traffic.num_sent_to_verify == 0


def test_gates_take_the_common_share_or_their_own(setting: Setting) -> None:
    def gate_name(spec: str) -> str:
        method = find_method(spec)
        assert method.gate is not None
        return method.gate(setting, 0).name

    assert gate_name("ciar") == "calibrated:0.3"
    assert gate_name("ciar:0.1") == "calibrated:0.1"
    assert gate_name("nearby") == "nearby:0.3:1"
    assert gate_name("nearby:0.2") == "nearby:0.2:0.8"
    assert gate_name("certified:2") == "certified:2"
    assert float(gate_name("certified").partition(":")[2]) == pytest.approx(0.7 * 16 * 0.35)  # Ω/2 is even in [0, 0.7]


def test_the_other_gates_ask_as_much_as_ciar_does_on_the_calibration_pictures(manifest: Manifest) -> None:
    """Its threshold for 30 % of the held-out tokens, 0.7, is exceeded by 60 % of these harder ones."""
    even = dict.fromkeys((*METHODS, "entropy:0.1"), np.linspace(0, 1, 11).tolist())
    hard = Setting(manifest, 0.3, even | {CIAR: HARD})
    assert hard.matched_share(0.3) == 0.6
    assert (hard.matched_share(0), hard.matched_share(1)) == (0, 1)
    names = ("entropy", "max-probability", "margin", "sets", "ambiguity", "random", "paper")
    gates = {name: method.gate(hard, 0) for name in names if (method := find_method(name)).gate is not None}
    assert {name: gate.name.rpartition(":")[2] for name, gate in gates.items()} == dict.fromkeys(names, "0.6")
    scores = [Scores(x, 0.0, 0.0) for x in np.linspace(0.05, 0.95, 10)]  # Ω: one in each tenth
    assert [gates["ambiguity"].must_verify(0, s) for s in scores] == [False] * 4 + [True] * 6
    own = find_method("entropy:0.1").gate
    assert own is not None
    assert own(hard, 0).name == "entropy:0.1:0.2"  # 20 % of these tokens are above 0.9


HARD = [0.1, 0.2, 0.3, 0.4, 0.75, 0.8, 0.85, 0.88, 0.95, 0.99]


def test_gates_are_made_anew_for_each_picture(setting: Setting) -> None:
    method = find_method("entropy")
    assert method.gate is not None
    assert isinstance(method.gate(setting, 0), DoubtThreshold)
    assert method.gate(setting, 0) is not method.gate(setting, 0)


def test_only_gates_that_take_ciars_share_need_calibration() -> None:
    needing = {name for name in METHODS if find_method(name).doubt is not None}
    assert needing == {"ambiguity", "entropy", "margin", "max-probability", "paper", "random", "sets"}
    assert set(QUICK_METHODS) <= set(METHODS)
    assert find_method(BASE).mode is Mode.CLOUD


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("entropi", "did you mean 'entropy'"),
        ("medusa", "known are cloud-window-1, cloud, lossless"),
        ("cloud:1", "takes no number"),
        ("ciar:x", "'x' in 'ciar:x' is not a number"),
        ("ciar:1.5", "in [0, 1]"),
        ("ciar:nan", "in [0, 1]"),
        ("sets:0", "at least 1"),
    ],
)
def test_nonsense_is_a_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^method: ") as caught:
        find_method(spec)
    assert sentence in str(caught.value)


def test_prompts_are_of_every_kind_different_and_always_the_same() -> None:
    kinds = {
        "concept": tuple(f"c{i}" for i in range(10)),
        "colour": ("red", "blue"),
        "ground": ("on sky", "on sand", "on sea"),
    }
    vocabulary = CaptionVocabulary(length=4, phrases=sum(kinds.values(), ()), kinds=kinds)
    prompts = prompts_of(vocabulary, 10)
    assert len(set(prompts)) == 10
    assert prompts[0] == "c0 red on sky"
    assert prompts[3:6] == prompts_of(vocabulary, 3, start=3)
    for prompt in prompts:
        assert (vocabulary.encode(prompt) > 0).sum() == 3
    with pytest.raises(InvalidRequest, match="has 10 to offer, 11 are asked for"):
        prompts_of(vocabulary, 8, start=3)


def test_a_placement_keeps_server_and_device_apart() -> None:
    placement = place()
    if placement.server is None or placement.device is None or placement.relay is None:
        assert "not pinned" in placement.describe()
        return
    assert not placement.server & placement.device
    assert placement.relay
    assert "pinned to core" in placement.describe()
    before = os.sched_getaffinity(0)
    with on_cores(placement.device):
        assert os.sched_getaffinity(0) == set(placement.device)
    assert os.sched_getaffinity(0) == before


def test_the_environment_names_machine_and_versions() -> None:
    found = environment()
    assert found["numpy"]
    assert {"cpu", "cores", "python", "torch", "onnxruntime", "grpcio", "ciar"} <= set(found)
