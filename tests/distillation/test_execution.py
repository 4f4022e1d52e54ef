"""Precision and compilation of the hot loops: the numbers of the plain passes, as far as their rounding goes."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdkd_env.distillation import DistillationRun, SamplingPlan, make_method
from ssdkd_env.distillation.batch_norm import BatchNormStatistics
from ssdkd_env.distillation.execution import EAGER, Execution, choose_precision
from ssdkd_env.distillation.grouped import GroupedRuns
from ssdkd_env.distillation.report import RoundClock
from ssdkd_env.distillation.updates import FastUpdate
from ssdkd_env.envs.distillation import SSDKDEnv
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.tasks import Task, load_task

#: Traces a network as the compiler would and runs the trace without compiling it, which takes long.
TRACED = "aot_eager"
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def digits_in_memory() -> None:
    load_task("digits")  # where it stays, in float32


@pytest.fixture
def float64(digits_in_memory: None, float64: None) -> None:
    """Everything else in float64."""


def make_network() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(10, channels=(4, 8, 8))


def gradients(network: nn.Module, logits: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(logits.square().sum(), list(network.parameters())))


def tiny_task() -> Task:
    digits = load_task("digits")
    sizes = {"rounds": 2, "warmup_rounds": 1, "inversion_steps": 2, "student_steps": 3, "batch_size": 16}
    return digits.with_budget(replace(digits.spec.budget, **sizes))


def test_a_network_is_called_as_it_is_by_default() -> None:
    network = make_network()
    assert EAGER.of(network) is network
    assert EAGER.of(network, hooked=True) is network


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="precision='half'"):
        Execution("half")


CPU, LARGE = torch.device("cpu"), (3, 32, 32)


@pytest.mark.parametrize(
    ("capabilities", "shape", "name", "reason"),
    [
        ({"avx512_bf16": True}, LARGE, "bfloat16", "natively"),
        ({"amx_bf16": True}, LARGE, "bfloat16", "natively"),
        ({"avx512_bf16": False, "avx512_f": True}, LARGE, "float32", "not compute bfloat16 natively"),
        ({"avx512_bf16": True}, (1, 8, 8), "float32", "8×8 are too small"),
        ({"avx512_bf16": True}, (3, 20, 20), "bfloat16", "20×20"),
        ({"avx512_bf16": True}, (3, 19, 20), "float32", "19×20"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_images_are_large(
    capabilities: dict[str, bool],
    shape: tuple[int, int, int],
    name: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    chosen = choose_precision("auto", CPU, shape)
    assert chosen.name == name
    assert reason in chosen.reason
    for asked in ("float32", "bfloat16"):
        assert choose_precision(asked, CPU, shape) == (asked, "it was asked for")


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_is_bfloat16_on_gpus_that_have_it(
    capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda", 0), (1, 8, 8)).name == name


def test_other_devices_and_an_older_pytorch_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", torch.device("meta"), LARGE).name == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", CPU, LARGE).name == "float32"


def test_a_run_and_an_environment_say_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdkd_env.distillation.execution.PIXELS_FOR_BFLOAT16", 64)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    run = DistillationRun(tiny_task(), make_method("ssdkd"), seed=0)
    assert run.precision.name == run.trainer.execution.precision == "bfloat16"
    env = SSDKDEnv("digits")
    assert (env.precision, env.precision_reason) == run.precision


def test_every_step_computes_with_the_weights_of_the_last() -> None:
    """Autocast keeps rounded weights as long as it is on: over several steps, the first ones."""
    network = make_network().train()
    update = FastUpdate(network, 0.0, 0.0, 1.0, "kl", forward=Execution("bfloat16").of(network))
    update.lr = 1.0
    target, weights = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)) * 5, torch.ones(6)
    first, second = (update(IMAGES, target, weights) for _ in range(2))
    assert (first - second).abs().max() > 0.05


def test_bfloat16_rounds_the_products_and_nothing_else() -> None:
    network, seen = make_network().train(), []
    network.features[0].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    exact = network(IMAGES)
    rounded = Execution("bfloat16").of(network)(IMAGES)
    assert seen == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    for rough, gradient in zip(gradients(network, rounded), gradients(network, exact), strict=True):
        assert rough.dtype == torch.float32
        assert torch.cosine_similarity(rough.flatten(), gradient.flatten(), dim=0) > 0.99


def test_statistics_of_bfloat16_features_are_summed_in_float32() -> None:
    """The variance is a difference of squares: in bfloat16 it would be lost where the mean is large."""
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    features = (20 + torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))).bfloat16().requires_grad_()
    statistics = BatchNormStatistics(network)
    with statistics.capture():
        network(features)
    loss = statistics.loss()
    exact = features.detach().double()
    mean, variance = exact.mean((0, 2, 3)), exact.var((0, 2, 3), unbiased=False)
    expected = mean.norm() + (1 - variance).norm()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), features)
    assert gradient.dtype == torch.bfloat16


def test_traced_passes_are_the_plain_ones() -> None:
    network, twin = make_network().train(), make_network().train()
    exact, traced = network(IMAGES), Execution(compiler=TRACED).of(twin)(IMAGES)
    torch.testing.assert_close(traced, exact)
    for found, wanted in zip(gradients(twin, traced), gradients(network, exact), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for found, wanted in zip(twin.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_network_whose_layers_get_hooks_is_not_traced() -> None:
    network = make_network()
    assert Execution(compiler=TRACED).of(network, hooked=True) is network


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.usefixtures("float64")
def test_a_compiled_run_gives_the_plain_ones_numbers(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole run in float64, with the compiler's tracing but without its minute: students after two rounds."""
    original = torch.compile

    def compile_quickly(network: nn.Module, backend: str, **options: Any) -> Any:
        assert backend == "inductor"
        return original(network, backend=TRACED, dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", compile_quickly)
    task, method = tiny_task(), make_method("ssdkd")
    task = Task(task.spec, copy.deepcopy(task.teacher_on(torch.device("cpu"))).double())
    runs = {
        backend: [DistillationRun(task, method, seed, backend=backend) for seed in range(2)]
        for backend in ("fast", "compiled")
    }
    for members in (*runs.values(), *runs.values()):
        if grouped:
            GroupedRuns().play([partial(run.step, SamplingPlan()) for run in members])
        else:
            for run in members:
                run.step(SamplingPlan())
    for fast, compiled in zip(*runs.values(), strict=True):
        for wanted, found in zip(fast.student.parameters(), compiled.student.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["ssdkd", "dafl", "deepinversion", "cmi", "nayer"])
def test_every_kind_of_source_runs_in_bfloat16(method: str) -> None:
    run = DistillationRun(tiny_task(), make_method(method, {"steps": 2}), seed=0, precision="bfloat16")
    report = run.step(SamplingPlan())
    assert not report.diverged
    assert all(parameter.dtype == torch.float32 for parameter in run.student.parameters())


def test_clock_adds_the_laps_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.0, 16.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = RoundClock(torch.device("cpu"))
    for part in ("synthesis", "distillation", "synthesis"):
        clock.lap(part)
    assert (clock.seconds("synthesis"), clock.seconds("distillation"), clock.seconds("other")) == (4.0, 2.0, 0.0)


def test_clock_on_cuda_reads_the_devices_own_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds between events, without a synchronisation of the clock's own."""

    class Event:
        count = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            Event.count += 1
            self.moment = Event.count**2

        def elapsed_time(self, end: Event) -> float:
            return 1000.0 * (end.moment - self.moment)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = RoundClock(torch.device("cuda"))
    clock.lap("synthesis")
    clock.lap("distillation")
    assert (clock.seconds("synthesis"), clock.seconds("distillation")) == (3.0, 5.0)
