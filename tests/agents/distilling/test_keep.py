"""Images and generator, kept for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from ssdkd_agents.distilling.keep import GENERATOR, IMAGES, IMAGES_CARD, Keep, keep_generator, keep_images
from ssdkd_agents.distilling.recent import Recent

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.forward import logits_of
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.networks.registry import build_network
from ssdkd_env.tasks import SyntheticImages
from ssdkd_env.tasks.task import build_teacher
from tests.envs.episodes import BUDGET, SMALL_PROBE
from tests.own_networks import DENSE_TASK

CARD = {"task": "digits", "seed": 4}


def played(keep: Keep, **arguments: Any) -> tuple[SSDKDEnv, Recent]:
    env, recent = SSDKDEnv(**({"budget": BUDGET, "probe": SMALL_PROBE} | arguments)), Recent(keep.last)
    keep.check(env)
    env.reset(seed=4)
    assert env.run is not None
    recent.see(env.run)
    over = False
    while not over:
        _, _, over, _, _ = env.step(env.own_action)
        recent.see(env.run)
    return env, recent


@pytest.mark.parametrize("images", ["buffer", 10])
@pytest.mark.parametrize("logits", [None, "float16", "none"])
def test_images_have_the_teachers_answers_to_exactly_them(images: Any, logits: Any, tmp_path: Path) -> None:
    keep = Keep(images, logits)
    env, recent = played(keep)
    count = keep_images(tmp_path, env, recent, keep, CARD)
    data = SyntheticImages(tmp_path / IMAGES)
    assert env.run is not None
    assert count == len(data) == (10 if images == 10 else len(env.run.buffer))
    expected = recent.images()[0] if images == 10 else env.run.buffer.residents.images
    assert torch.equal(data.images, expected)
    spec = env.task.spec
    answers = logits_of(env.task.teacher_on(env.device), data.images, Normalize(spec.mean, spec.std, env.device))
    assert torch.equal(data.labels.long(), answers.argmax(dim=1))
    if logits == "none":
        assert data.logits is None
    else:
        dtype = torch.float16 if logits else torch.float32
        assert data.logits is not None and torch.equal(data.logits, answers.to(dtype))
    assert data.card == json.loads((tmp_path / IMAGES_CARD).read_text())
    assert data.card.items() >= {**CARD, "images": count, "dense": False}.items()
    assert data.card["normalization"] == {"mean": list(spec.mean), "std": list(spec.std)}


def test_a_teacher_that_is_asked_through_the_data_set_answers_what_was_kept(tmp_path: Path) -> None:
    """So that whoever trains on the entries gives the network what the logits belong to."""
    keep = Keep("buffer")
    env, recent = played(keep)
    keep_images(tmp_path, env, recent, keep, CARD)
    entries = [SyntheticImages(tmp_path / IMAGES)[i] for i in range(8)]
    with torch.no_grad():
        answers = env.task.teacher_on(env.device)(torch.stack([entry[0] for entry in entries]))
    torch.testing.assert_close(answers, torch.stack([entry[2] for entry in entries]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("logits", [None, "float16"])
def test_of_dense_predictions_labels_are_maps_and_logits_are_on_demand(logits: Any, tmp_path: Path) -> None:
    save_weights(tmp_path / "teacher.safetensors", build_teacher(DENSE_TASK, seed=3))
    own = {"task": "tests.own_networks:DENSE_TASK", "teacher": str(tmp_path / "teacher.safetensors"), "budget": None}
    keep = Keep("buffer", logits)
    env, recent = played(keep, **own)
    keep_images(tmp_path, env, recent, keep, CARD)
    data = SyntheticImages(tmp_path / IMAGES)
    assert data.labels.shape == (len(data), 8, 8) and data.card["dense"] is True
    assert (data.logits is None) == (logits is None)
    if data.logits is not None:
        assert (data.logits.argmax(dim=1) == data.labels).float().mean() > 0.99  # but for ties of half precision
        assert data.logits.shape == (len(data), DENSE_TASK.num_classes, 8, 8)


@pytest.mark.parametrize(("logits", "of_logits"), [(None, 40), ("float16", 20), ("none", 0)])
def test_bytes_of_an_image_are_those_of_the_file(logits: Any, of_logits: int, tmp_path: Path) -> None:
    keep = Keep("buffer", logits)
    env, recent = played(keep)
    count = keep_images(tmp_path, env, recent, keep, CARD)
    assert keep.image_bytes(env.task) == 64 + 1 + 4 + of_logits
    assert sum(tensor.nbytes for tensor in load_file(tmp_path / IMAGES).values()) == count * keep.image_bytes(env.task)


@pytest.mark.parametrize("method", ["ssdkd", "fast5_plain", "nayer", "dafl"])
def test_generator_is_the_runs_and_makes_images(method: str, tmp_path: Path) -> None:
    env, _ = played(Keep(generator=True), method=method, method_options={"steps": 2})
    keep_generator(tmp_path, env, CARD)
    card, state = json.loads((tmp_path / "generator.json").read_text()), load_file(tmp_path / GENERATOR)
    assert ("label_embedding" in state) == (method == "nayer")
    assert state.pop("label_embedding", torch.zeros(10, card["latent_dim"])).shape == (10, card["latent_dim"])
    options = {"latent_dim": card["latent_dim"], "image_shape": tuple(card["image_shape"])} | card["options"]
    generator = build_network("generator_arch", card["arch"], options, seed=0)
    generator.load_state_dict(state)
    assert env.run is not None
    kept = env.run.inversion.source.state_dict()["generator"]
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    with torch.no_grad():
        images = generator.train()(torch.randn(4, card["latent_dim"]))
    assert images.shape == (4, *env.task.spec.image_shape) and images.min() >= 0 and images.max() <= 1
    assert card["inputs"] and card["weights"] == GENERATOR and card.items() >= CARD.items()


@pytest.mark.parametrize("images", [0, -1, 10**9])
def test_number_of_images_has_bounds(images: int) -> None:
    with pytest.raises(InvalidInputError, match=f"--keep-images {images}: expected buffer, or a number from 1 to"):
        Keep(images)


def test_what_a_method_has_not_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--keep-logits float16 needs images"):
        Keep(logits="float16")
    with pytest.raises(InvalidInputError, match="--keep-generator: method 'deepinversion' has none"):
        Keep(generator=True).check(SSDKDEnv(method="deepinversion"))
    with pytest.raises(InvalidInputError, match="--keep-images: method 'vanilla_kd' synthesises none"):
        Keep("buffer").check(SSDKDEnv(method="vanilla_kd"))
    with pytest.raises(InvalidInputError, match="--keep-generator: method 'vanilla_kd' has none"):
        Keep(generator=True).check(SSDKDEnv(method="vanilla_kd"))
