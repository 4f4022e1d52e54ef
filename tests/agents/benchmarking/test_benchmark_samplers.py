"""Benchmarks whose entries differ in their samplers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from ssdkd_agents.benchmarking.benchmark import Benchmark, Plan, Settings, make_plan
from ssdkd_agents.benchmarking.sampler_report import make_sampler_table
from ssdkd_agents.benchmarking.suites import Entry

from ssdkd_env.errors import InvalidInputError
from tests.agents.benchmarking.test_benchmark import SETTINGS, play
from tests.envs.episodes import BUDGET


def test_suite_of_samplers_takes_further_ones() -> None:
    plan = make_plan(Settings(suite="samplers", samplers=("constant:[0, 0, 0, 0, 0]",), env_kwargs={"budget": BUDGET}))
    assert [entry.label for entry in plan.entries[:1] + plan.entries[-1:]] == ["paper", "constant:[0, 0, 0, 0, 0]"]
    assert plan.compares_samplers
    with pytest.raises(InvalidInputError, match="'uniform' is in the suite already"):
        make_plan(Settings(suite="samplers", samplers=("uniform",)))
    with pytest.raises(InvalidInputError, match="exclude each other"):
        make_plan(Settings(suite="samplers", methods=("ssdkd",)))


@pytest.mark.parametrize(
    ("settings", "compares"),
    [
        (SETTINGS, True),
        (Settings(methods=("ssdkd", "dfq"), samplers=("own", "random")), False),
        (Settings(methods=("ssdkd", "dfq")), False),
        (Settings(methods=("ssdkd",)), False),
        (Settings(suite="ablation"), False),
        (Settings(suite="scale"), False),
    ],
)
def test_plan_knows_whether_it_compares_samplers(settings: Settings, compares: bool) -> None:
    assert make_plan(settings).compares_samplers is compares


def test_what_a_sampler_needs_belongs_to_it() -> None:
    needs = {"action": "full", "observation": "scaled", "history": 2, "rounds_per_step": 4}
    entries = (Entry("a", sampler="a"), Entry("b", sampler="b", env_kwargs=needs))
    assert Plan("", "id", {}, entries).compares_samplers
    other = Entry("b", sampler="b", env_kwargs=needs | {"reward": "candidate_agreement"})
    assert not Plan("", "id", {}, (entries[0], other)).compares_samplers


def test_comparison_of_samplers_has_their_table_and_pictures(tmp_path: Path) -> None:
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    assert play(benchmark) == []
    table = benchmark.report()
    assert table.startswith(make_sampler_table(benchmark.results()))
    assert "rliable" in table and "4 of 4 episodes" in table
    pictures = {path.name for path in benchmark.folder.glob("*.png")}
    assert pictures == {"accuracy-seconds.png", "distributions.png", "profiles.png", "improvement.png"}
    assert {line["group"] for line in benchmark.results()} == {"own", "random"}
