"""Sources of images: Adam by hand for each, what is new in each batch and step, and what goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation.augmentation import Normalize
from ssdkd_env.distillation.methods import METHODS, VARIABLES, Method
from ssdkd_env.distillation.noisy_labels import NoisyLabels
from ssdkd_env.distillation.sources import (
    ADAM_BETAS,
    PIXEL_BETAS,
    MetaGenerator,
    Pixels,
    TrainedGenerator,
    _reset,
)
from ssdkd_env.files import load_state, save_state
from ssdkd_env.networks.dcgan import DCGANGenerator
from ssdkd_env.networks.generators import Generator
from tests.distillation.reference import close
from tests.distillation.test_inversion import (
    BATCH,
    CLASSES,
    LATENT,
    SHAPE,
    HandAdam,
    frozen_teacher,
    make_inversion,
    seeded,
)

TRAINED = ["generator_and_latents", "fresh_generator", "generator_and_noisy_labels", "generator"]
SOURCES = ["meta_generator", *TRAINED, "pixels"]
GENERATOR_LR, OWN_LR = 3e-3, 2e-2
#: Multiples of a half, so that a pixel at the end of its range is there exactly.
MEAN, STD = (0.5, 0.25), (0.5, 0.25)
AnySource = MetaGenerator | TrainedGenerator | Pixels


@pytest.fixture(autouse=True)
def global_random() -> Iterator[None]:
    """Layers are initialised from the global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        yield


def make_generator(seed: int = 3) -> Generator:
    generator: Generator = seeded(lambda: Generator(LATENT, SHAPE, channels=8), seed)
    return generator


def method_of(variables: str) -> Method:
    return replace(
        METHODS["ssdkd"], variables=variables, memory="pool", generator_lr=GENERATOR_LR, latent_lr=OWN_LR, warm_up=False
    )


def make_trained(variables: str, seed: int = 0, generator: nn.Module | None = None) -> TrainedGenerator:
    random = torch.Generator().manual_seed(seed)
    return TrainedGenerator(generator or make_generator(), LATENT, CLASSES, method_of(variables), [], random)


def make_pixels(seed: int = 0, lr: float = 0.2, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Pixels:
    normalize = Normalize(mean, std, torch.device("cpu"))
    shape = (len(mean), *SHAPE[1:])
    return Pixels(shape, normalize, replace(method_of("pixels"), latent_lr=lr), [], torch.Generator().manual_seed(seed))


def make_source(
    variables: str, seed: int = 0, generator: nn.Module | None = None, extra: list[nn.Parameter] | None = None
) -> AnySource:
    random, method = torch.Generator().manual_seed(seed), method_of(variables)
    generator = generator or make_generator()
    if variables == "meta_generator":
        return MetaGenerator(generator, LATENT, method, extra or [], random)
    if variables == "pixels":
        return Pixels(SHAPE, Normalize(MEAN, STD, torch.device("cpu")), method, extra or [], random)
    return TrainedGenerator(generator, LATENT, CLASSES, method, extra or [], random)


def make_targets(seed: int = 5, count: int = BATCH) -> Tensor:
    """Classes in an order of chance; each as often as others up to one."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % CLASSES


def loss_of(images: Tensor) -> Tensor:
    """A loss with another gradient at every pixel; its targets partly lie outside the range of images."""
    count = images[0].numel()
    targets = torch.linspace(-0.3, 1.3, count, dtype=images.dtype).view(images.shape[1:])
    return (images - targets).square().sum() / 10.0


def batch_of(source: AnySource, steps: int = 2, count: int = BATCH, seed: int = 5) -> Tensor:
    source.begin(make_targets(seed))
    for _ in range(steps):
        source.step(loss_of(source.images()))
    return source.finish(count)


def run_by_hand(generator: nn.Module, parameters: list[Tensor], latents: Tensor) -> Tensor:
    """The generator with these parameters."""
    names = [name for name, _ in generator.named_parameters()]
    images: Tensor = torch.func.functional_call(generator, dict(zip(names, parameters, strict=True)), (latents,))
    return images


def moved(adam: HandAdam, point: list[Tensor], images_of: Callable[[list[Tensor]], Tensor]) -> list[Tensor]:
    point = [p.detach().requires_grad_() for p in point]
    return adam.step(point, torch.autograd.grad(loss_of(images_of(point)), point))


def assert_parameters(generator: nn.Module, expected: list[Tensor]) -> None:
    for parameter, by_hand in zip(generator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), by_hand, rtol=1e-9, atol=1e-11)


# --- which source a method has ---


@pytest.mark.parametrize("variables", SOURCES)
def test_the_engine_takes_the_source_the_method_names(variables: str) -> None:
    kinds: dict[str, type] = {"meta_generator": MetaGenerator, "pixels": Pixels}
    engine = make_inversion(method_of(variables), frozen_teacher())
    assert type(engine.source) is kinds.get(variables, TrainedGenerator)
    assert set(SOURCES) == VARIABLES.keys() - {"nothing"}


@pytest.mark.parametrize("variables", SOURCES)
def test_images_lie_in_the_unit_interval_and_the_loss_falls(variables: str) -> None:
    source = make_source(variables)
    source.begin(make_targets())
    losses = []
    for _ in range(60):
        images = source.images()
        assert images.shape == (BATCH, *SHAPE)
        assert images.min() >= 0
        assert images.max() <= 1
        loss = loss_of(images)
        losses.append(loss.item())
        source.step(loss)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    finished = source.finish(BATCH)
    assert finished.shape == (BATCH, *SHAPE)
    assert not finished.requires_grad
    assert finished.min() >= 0
    assert finished.max() <= 1
    assert loss_of(finished) < 0.8 * losses[0]


@pytest.mark.parametrize("variables", SOURCES)
def test_what_the_objective_trains_moves_along(variables: str) -> None:
    extra = nn.Parameter(torch.tensor([2.0, -1.0]))
    source = make_source(variables, extra=[extra])
    source.begin(make_targets())
    source.step(loss_of(source.images()) + extra.square().sum())
    close(extra, [2.0 - GENERATOR_LR, -1.0 + GENERATOR_LR])  # Adam's first step is the learning rate


@pytest.mark.parametrize("variables", [v for v in SOURCES if v != "generator"])
def test_a_batch_is_what_it_was_until_a_step(variables: str) -> None:
    source = make_source(variables)
    source.begin(make_targets())
    first = source.images()
    assert torch.equal(first, source.images())
    source.step(loss_of(source.images()))
    assert not torch.equal(first, source.images())
    assert torch.equal(source.images(), source.finish(BATCH))


@pytest.mark.parametrize("variables", SOURCES)
def test_a_batch_differs_from_the_last(variables: str) -> None:
    source = make_source(variables)
    source.begin(make_targets())
    first = source.images()
    source.begin(make_targets())
    assert not torch.equal(first, source.images())


@pytest.mark.parametrize("variables", SOURCES)
def test_only_a_generator_alone_makes_more_images_than_the_batch(variables: str) -> None:
    for count in (3, 20):
        images = batch_of(make_source(variables), count=count)
        assert len(images) == (count if variables == "generator" else BATCH)


# --- a generator that is trained, by hand ---


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("fresh", [False, True])
def test_generator_and_latents_take_plain_adam_steps(fresh: bool) -> None:
    source = make_trained("fresh_generator" if fresh else "generator_and_latents", seed=11)
    generator, random = make_generator(), torch.Generator().manual_seed(11)
    theta = [p.detach().clone() for p in generator.parameters()]
    for number in range(3):
        torch.manual_seed(number)
        images = batch_of(source, steps=3)
        if fresh:
            theta = [p.detach() for p in make_generator(seed=number).parameters()]
        point = [*theta, torch.randn(BATCH, LATENT, generator=random)]
        adam = HandAdam([GENERATOR_LR] * len(theta) + [OWN_LR], ADAM_BETAS)  # its moments are new in every batch
        for _ in range(3):
            point = moved(adam, point, lambda p: run_by_hand(generator, p[:-1], p[-1]))
        theta = point[:-1]
        torch.testing.assert_close(images, run_by_hand(generator, theta, point[-1]), rtol=1e-9, atol=1e-11)
        assert_parameters(source.generator, theta)


@pytest.mark.usefixtures("float64")
def test_a_generator_alone_takes_adam_steps_that_go_on_from_batch_to_batch() -> None:
    source = make_trained("generator", seed=12)
    generator, random = make_generator(), torch.Generator().manual_seed(12)
    theta = [p.detach().clone() for p in generator.parameters()]
    adam = HandAdam([GENERATOR_LR] * len(theta), ADAM_BETAS)  # one for all batches
    for _ in range(3):
        images = batch_of(source, steps=2, count=5)
        for _ in range(2):
            z = torch.randn(BATCH, LATENT, generator=random)
            theta = moved(adam, theta, lambda p: run_by_hand(generator, p, z))  # noqa: B023 (called at once)
        fresh = run_by_hand(generator, theta, torch.randn(5, LATENT, generator=random))
        torch.testing.assert_close(images, fresh, rtol=1e-9, atol=1e-11)
        assert_parameters(source.generator, theta)


def standardised(embedding: Tensor, targets: Tensor) -> Tensor:
    """The targets' embeddings, each number with mean 0 and deviation 1 over the batch, but for a hair."""
    chosen = embedding[targets]
    centred = chosen - chosen.sum(dim=0) / len(chosen)
    return centred / (((centred**2).sum(dim=0) / len(chosen)).sqrt() + 1e-5)


def noisy_inputs(embedding: Tensor, targets: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    seen = dict.fromkeys(range(CLASSES), 0)
    rows = []
    for label, vector in zip(targets.tolist(), standardised(embedding, targets), strict=True):
        rows.append(vector @ weights[seen[label]] + biases[seen[label]])
        seen[label] += 1  # the next image of the class belongs to the next group
    return torch.stack(rows)


@pytest.mark.usefixtures("float64")
def test_generator_and_noisy_labels_take_plain_adam_steps() -> None:
    source = make_trained("generator_and_noisy_labels", seed=13)
    assert source._labels is not None
    generator = make_generator()
    lasting = [p.detach().clone() for p in (*generator.parameters(), source._labels.embedding)]
    for seed in range(3):
        source.begin(targets := make_targets(seed))
        own = [source._labels._weights.detach().clone(), source._labels._biases.detach().clone()]
        point = [*lasting, *own]
        adam = HandAdam([GENERATOR_LR] * len(lasting) + [OWN_LR] * 2, ADAM_BETAS)

        def images_of(p: list[Tensor], targets: Tensor = targets) -> Tensor:
            return run_by_hand(generator, p[:-3], noisy_inputs(p[-3], targets, p[-2], p[-1]))

        for _ in range(2):
            torch.testing.assert_close(source.images(), images_of(point), rtol=1e-9, atol=1e-11)
            source.step(loss_of(source.images()))
            point = moved(adam, point, images_of)
        torch.testing.assert_close(source.finish(BATCH), images_of(point), rtol=1e-9, atol=1e-11)
        lasting = point[:-2]
        assert_parameters(source.generator, lasting[:-1])
        torch.testing.assert_close(source._labels.embedding.detach(), lasting[-1], rtol=1e-9, atol=1e-11)


# --- latents ---


def test_a_generator_alone_draws_latents_anew_in_each_step() -> None:
    source = make_trained("generator")
    source.begin(make_targets())
    images = [source.images() for _ in range(2)] + [source.finish(BATCH) for _ in range(2)]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


# --- a generator that is initialised anew ---


def test_a_fresh_generator_forgets_what_it_learnt() -> None:
    source = make_trained("fresh_generator")
    source.begin(make_targets())
    start = copy.deepcopy(source.generator.state_dict())
    for _ in range(3):
        source.step(loss_of(source.images()))
    trained = copy.deepcopy(source.generator.state_dict())
    source.begin(make_targets())
    weights = [name for name, p in source.generator.named_parameters() if p.dim() > 1]
    assert len(weights) == 4
    for name, value in source.generator.state_dict().items():
        if name in weights:
            assert not torch.equal(value, start[name]), "two batches start from the same weights"
            assert not torch.equal(value, trained[name])
        elif "running" in name or "num_batches" in name:
            assert torch.equal(value, make_generator().state_dict()[name]), "the statistics are old"


def test_a_kept_generator_goes_on_from_where_it_was() -> None:
    for variables in ("generator_and_latents", "generator_and_noisy_labels", "generator"):
        source = make_trained(variables)
        before = [p.detach().clone() for p in source.generator.parameters()]
        source.begin(make_targets())
        assert all(torch.equal(a, b) for a, b in zip(before, source.generator.parameters(), strict=True))
        source.step(loss_of(source.images()))
        trained = [p.detach().clone() for p in source.generator.parameters()]
        assert all(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
        source.begin(make_targets())
        assert all(torch.equal(a, b) for a, b in zip(trained, source.generator.parameters(), strict=True))


# --- noisy labels ---


def make_labels(seed: int = 0, dim: int = LATENT) -> NoisyLabels:
    return NoisyLabels(CLASSES, dim, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("targets", [[0, 1, 2, 3], [2, 2, 2], [0, 1, 0, 3, 0, 1], [3]])
def test_groups_hold_each_class_at_most_once(targets: list[int]) -> None:
    labels = make_labels()
    weights, biases = labels.begin(torch.tensor(targets))
    members = list(zip(labels._group.tolist(), targets, strict=True))
    assert len(set(members)) == len(targets)
    groups = max(targets.count(label) for label in targets)
    assert sorted({group for group, _ in members}) == list(range(groups))
    assert weights.shape == (groups, LATENT, LATENT)
    assert biases.shape == (groups, LATENT)


def test_inputs_are_standardised_embeddings_through_the_groups_layer() -> None:
    labels, targets = make_labels(), make_targets(count=11)
    weights, biases = labels.begin(targets)
    expected = noisy_inputs(labels.embedding, targets, weights, biases)
    torch.testing.assert_close(labels(), expected, rtol=1e-4, atol=1e-5)


def test_two_images_of_one_class_get_different_inputs() -> None:
    labels = make_labels()
    labels.begin(torch.tensor([0, 1, 0, 1, 0]))
    inputs = labels()
    for same in ((0, 2), (0, 4), (2, 4), (1, 3)):
        assert (inputs[same[0]] - inputs[same[1]]).abs().max() > 0.1


def test_the_layers_are_new_in_each_batch_and_the_embedding_is_not() -> None:
    labels, targets = make_labels(), make_targets()
    embedding = labels.embedding.detach().clone()
    first = [p.detach().clone() for p in labels.begin(targets)]
    second = labels.begin(targets)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(labels.embedding, embedding)


def test_the_layers_start_uniform_as_a_linear_layer_does() -> None:
    weights, biases = make_labels(dim=100).begin(torch.arange(8) % 2)
    for values in (weights, biases):
        assert values.is_leaf
        assert values.requires_grad
        assert 0.098 < values.abs().max() <= 0.1
        assert values.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)


def test_the_layers_start_normal_where_they_have_a_deviation() -> None:
    weights, biases = NoisyLabels(CLASSES, 100, torch.Generator().manual_seed(0), std=0.7).begin(torch.arange(8) % 2)
    assert weights.is_leaf and weights.requires_grad and biases.is_leaf and biases.requires_grad
    assert weights.mean().item() == pytest.approx(0.0, abs=0.02)
    assert weights.std().item() == pytest.approx(0.7, rel=0.02)
    assert (weights.abs() > 1.4).float().mean().item() == pytest.approx(0.0455, abs=0.005), "beyond two deviations"
    assert not biases.any()


@pytest.mark.parametrize("variables", ["meta_generator", *TRAINED])
def test_a_generator_that_is_reset_has_nothing_of_the_one_before(variables: str) -> None:
    source = make_source(variables)
    assert isinstance(source, MetaGenerator | TrainedGenerator)
    batch_of(source)
    before = [p.detach().clone() for p in source.generator.parameters()]
    torch.manual_seed(5)
    source.reset_generator()
    after = [p.detach().clone() for p in source.generator.parameters()]
    torch.manual_seed(5)
    _reset(source.generator)
    assert all(torch.equal(a, b) for a, b in zip(after, source.generator.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a in after for b in before if a.shape == b.shape)
    optimizer = source._meta_optimizer if isinstance(source, MetaGenerator) else source._optimizer
    assert not optimizer.state_dict()["state"], "moments of another network"


def test_the_embedding_learns() -> None:
    source = make_trained("generator_and_noisy_labels")
    assert source._labels is not None
    before = source._labels.embedding.detach().clone()
    batch_of(source)
    assert (source._labels.embedding.detach() != before).any(dim=1).all()


def test_a_batch_of_one_image_has_finite_inputs() -> None:
    labels = make_labels()
    labels.begin(torch.tensor([2]))
    assert labels().isfinite().all()


# --- pixels ---


@pytest.mark.usefixtures("float64")
def test_pixels_take_adam_steps_and_are_clipped() -> None:
    source, random = make_pixels(seed=14), torch.Generator().manual_seed(14)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    for _ in range(2):
        images = batch_of(source, steps=12)
        point = torch.randn(BATCH, *SHAPE, generator=random)
        point = ((point * std + mean).clamp(0, 1) - mean) / std
        adam = HandAdam([0.2], PIXEL_BETAS)
        for _ in range(12):
            (point,) = moved(adam, [point], lambda p: p[0] * std + mean)
            point = ((point * std + mean).clamp(0, 1) - mean) / std
        expected = point * std + mean
        torch.testing.assert_close(images, expected, rtol=1e-9, atol=1e-9)
        assert (expected == 0).any()
        assert (expected == 1).any()
        assert ((expected > 0) & (expected < 1)).any()


CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100_STATISTICS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
DIGITS_STATISTICS = ((0.305,), (0.376,))


@pytest.mark.parametrize(
    ("statistics", "edge"),
    [
        *((CIFAR10_STATISTICS, edge) for edge in (0.0, 1.0)),
        *((statistics, edge) for statistics in (CIFAR100_STATISTICS, DIGITS_STATISTICS) for edge in (0.0, 1.0)),
    ],
)
def test_a_pixel_at_the_end_of_its_range_can_come_back(
    statistics: tuple[tuple[float, ...], tuple[float, ...]], edge: float
) -> None:
    source, up = make_pixels(mean=statistics[0], std=statistics[1]), 2 * edge - 1
    source.begin(make_targets())
    for _ in range(40):
        source.step(-up * source.images().sum())
    assert (source.images() - edge).abs().max() < 1e-6
    for _ in range(40):
        source.step(up * source.images().sum())
    assert (source.images() - edge).abs().min() > 0.5


# --- the first layer ---


class Nested(nn.Module):
    """A generator inside another module, which can itself be reset."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Generator(LATENT, SHAPE, channels=8)

    def reset_parameters(self) -> None:
        raise AssertionError("more than the first layer was reset")

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.inner(latents)
        return images


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("variables", [v for v in SOURCES if v not in ("pixels", "fresh_generator")])
def test_the_first_layers_reset_changes_that_layer_alone(variables: str, nested: bool) -> None:
    source = make_source(variables, generator=seeded(Nested, 3) if nested else None)
    assert isinstance(source, (MetaGenerator, TrainedGenerator))
    batch_of(source)
    before = copy.deepcopy(source.generator.state_dict())
    source.reset_first_layer()
    prefix = "inner." if nested else ""
    changed = {name for name, value in source.generator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{prefix}project.weight", f"{prefix}project.bias"}
    weight = source.generator.get_parameter(f"{prefix}project.weight")
    assert weight.abs().max() <= LATENT**-0.5
    assert batch_of(source).isfinite().all()


def test_the_first_layers_reset_reaches_the_next_batch() -> None:
    sources = [make_source("meta_generator", seed=1) for _ in range(2)]
    for source in sources:
        batch_of(source)
    sources[0].reset_first_layer()
    assert not torch.equal(batch_of(sources[0]), batch_of(sources[1]))


def test_network_with_an_initialisation_of_its_own_begins_anew_with_it() -> None:
    """DCGAN's weights have a standard deviation of 0.02 and its biases are 0; PyTorch's are neither."""
    generator = DCGANGenerator(8, (3, 32, 32), channels=32)
    with torch.no_grad():
        for weights in generator.parameters():
            weights.fill_(7.0)
    _reset(generator)
    layers = [part for part in generator.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert torch.cat([layer.weight.flatten() for layer in layers]).std().item() == pytest.approx(0.02, rel=0.05)
    assert all(layer.bias is None or not layer.bias.any() for layer in layers)
    assert all((part.weight == 1).all() for part in generator.modules() if isinstance(part, nn.BatchNorm2d))


def test_without_a_generator_no_first_layer_is_reset() -> None:
    first, second = make_pixels(seed=1), make_pixels(seed=1)
    batch_of(first)
    batch_of(second)
    first.reset_first_layer()
    assert torch.equal(batch_of(first), batch_of(second))


# --- state ---


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("variables", SOURCES)
def test_a_state_from_disk_continues_bit_identically(
    variables: str, layout: torch.memory_format, tmp_path: Path
) -> None:
    original, restored = (
        make_source(variables, seed, make_generator(seed).to(memory_format=layout))  # type: ignore[call-overload]
        for seed in (1, 2)
    )
    for seed in range(2):
        batch_of(original, seed=seed)
        batch_of(restored, seed=9)
    save_state(tmp_path / "source.safetensors", original.state_dict())
    restored.load_state_dict(load_state(tmp_path / "source.safetensors"))
    for source in (original, restored):
        source._random.manual_seed(4)
    for seed in range(2, 4):
        torch.manual_seed(seed)
        expected = batch_of(original, count=5, seed=seed)
        torch.manual_seed(seed)
        assert torch.equal(batch_of(restored, count=5, seed=seed), expected)
    states = [source.state_dict().get("generator", {}) for source in (original, restored)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
