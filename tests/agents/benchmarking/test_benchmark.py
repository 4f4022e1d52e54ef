"""A benchmark's folder: left and continued, it holds the lines of one that was never left."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.benchmarking import suites
from ssdkd_agents.benchmarking.benchmark import Benchmark, Job, Plan, Settings, make_plan
from ssdkd_agents.benchmarking.experiments import play as play_episode
from ssdkd_agents.benchmarking.experiments import run_episode
from ssdkd_agents.benchmarking.suites import ABLATION_SUITE, Entry
from ssdkd_agents.lines import read_lines
from ssdkd_agents.ownership import LOCK
from ssdkd_agents.seeds import HELD_OUT_SEED
from ssdkd_agents.stopping import Stopper

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.processes import Processes
from tests.agents.benchmarking.test_experiments import timeless
from tests.envs.episodes import BUDGET

SETTINGS = Settings(methods=("ssdkd",), samplers=("own", "random"), env_kwargs={"budget": BUDGET}, seeds=2)
EPISODES = 4


class StopAfter(Stopper):
    """Stops at the n-th time it is asked: once before each episode, once before each round."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def play(benchmark: Benchmark, stop: Stopper | None = None) -> list[str]:
    """Play in this process; returns the errors."""
    return [outcome.error for outcome in benchmark.run(Processes(1), stop or Stopper()) if outcome.error]


def lines_of(benchmark: Benchmark) -> list[dict[str, Any]]:
    return [timeless(line) for line in benchmark.results()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """One that was never interrupted."""
    benchmark = Benchmark.new(tmp_path_factory.mktemp("runs") / "finished", SETTINGS)
    assert play(benchmark) == []
    return benchmark


# --- what is played ---


def test_seeds_are_outermost() -> None:
    plan = Plan("", "id", {}, (Entry("a"), Entry("b")), seeds=2, first_seed=7)
    assert [job.key for job in plan.jobs()] == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]


def test_plan_of_a_suite_and_of_a_grid() -> None:
    plan = make_plan(Settings(suite="ablation"))
    assert plan == Plan("ablation", "SSDKD/Digits-v2", {}, ABLATION_SUITE, 5, HELD_OUT_SEED)
    plan = make_plan(
        Settings(methods=("dfq",), env_id="SSDKD/CIFAR10-v2", env_kwargs={"clock": False}, seeds=3, first_seed=1)
    )
    assert plan == Plan("", "SSDKD/CIFAR10-v2", {"clock": False}, (Entry("dfq", "dfq"),), 3, 1)
    assert make_plan(Settings(suite="cifar-cpu")).env_id == "SSDKD/CIFAR10-v2"
    assert make_plan(Settings(suite="cifar-cpu", env_id="SSDKD/Digits-v2")).env_id == "SSDKD/Digits-v2"


def test_lines_are_those_of_the_episodes_alone(finished: Benchmark) -> None:
    results = finished.results()
    assert [(line["label"], line["seed"]) for line in results] == [
        (label, HELD_OUT_SEED + offset) for offset in range(2) for label in ("ssdkd", "ssdkd, random")
    ]
    for job, line in zip(finished.jobs, results, strict=True):
        assert timeless(line) == timeless({"label": job.label, "group": job.group} | run_episode(job.config))
    assert {path.name for path in finished.folder.iterdir()} == {"config.json", "command.txt", "results.jsonl", LOCK}


def test_config_says_everything_that_was_played(finished: Benchmark) -> None:
    config = json.loads((finished.folder / "config.json").read_text())
    assert config["plan"]["entries"][1] == asdict(Entry("ssdkd, random", sampler="random", group="random"))
    assert config["plan"]["env_kwargs"] == {"budget": BUDGET}
    assert Benchmark.open(finished.folder).plan == finished.plan


def test_folder_of_an_earlier_version_is_opened(tmp_path: Path) -> None:
    """Which said `env` where it is `env_id` now."""
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    config["settings"]["env"] = config["settings"].pop("env_id")
    path.write_text(json.dumps(config))
    assert Benchmark.open(tmp_path / "out").plan == benchmark.plan


# --- leaving and continuing ---


@pytest.mark.parametrize("questions", [0, 2, 9])
def test_stopped_benchmark_continues_where_it_was(questions: int, finished: Benchmark, tmp_path: Path) -> None:
    """Before the first episode, in the middle of one, after some."""
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    assert play(benchmark, StopAfter(questions)) == []
    per_episode = 1 + BUDGET["rounds"]
    assert len(benchmark.results()) == questions // per_episode
    kept = {path.suffix for path in (tmp_path / "out" / "unfinished").glob("*")}
    assert kept == ({".json", ".safetensors"} if questions % per_episode else set())

    again = Benchmark.resume(tmp_path / "out", Settings())
    assert play(again) == []
    assert lines_of(again) == lines_of(finished)
    assert not (tmp_path / "out" / "unfinished").exists()


def test_benchmark_stopped_again_and_again_ends_the_same(finished: Benchmark, tmp_path: Path) -> None:
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    for _ in range(50):
        play(benchmark, StopAfter(3))
        benchmark = Benchmark.resume(tmp_path / "out", Settings())
        if len(benchmark.results()) == len(benchmark.jobs):
            break
    assert lines_of(benchmark) == lines_of(finished)


def test_what_is_finished_is_not_played_again(
    finished: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("played")

    monkeypatch.setattr("ssdkd_agents.benchmarking.benchmark.play", refuse)
    before = (finished.folder / "results.jsonl").read_bytes()
    left = finished.jobs[1].checkpoint  # of a process that was killed right after its line
    left.parent.mkdir()
    for path in (left, left.with_suffix(".2.safetensors")):
        path.touch()
    assert play(Benchmark.resume(finished.folder, Settings())) == []
    assert (finished.folder / "results.jsonl").read_bytes() == before
    assert not left.parent.exists()


@pytest.mark.parametrize("cut", [2, 40, "to its first letter"])
def test_half_a_line_is_tolerated_and_redone(cut: int | str, finished: Benchmark, tmp_path: Path) -> None:
    """As a machine leaves it that dies in the middle of writing."""
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    content = (finished.folder / "results.jsonl").read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    (tmp_path / "out" / "results.jsonl").write_bytes(content[: last + 1] if isinstance(cut, str) else content[:-cut])
    with pytest.warns(UserWarning, match=rf"line {EPISODES} is cut short, and left out"):
        assert len(benchmark.results()) == EPISODES - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = Benchmark.resume(tmp_path / "out", Settings())
        assert play(again) == []
    assert lines_of(again) == lines_of(finished)
    text = (tmp_path / "out" / "results.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) == EPISODES


def test_more_seeds_may_be_asked_for(finished: Benchmark, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    play(Benchmark.new(folder, replace(SETTINGS, seeds=1)))
    more = Benchmark.resume(folder, Settings(seeds=2))
    assert play(more) == []
    assert lines_of(more) == lines_of(finished)
    assert Benchmark.open(folder).plan == finished.plan
    with pytest.raises(InvalidInputError, match=r"seeds=1, but .* was made with seeds=2; ask for as many or more"):
        Benchmark.resume(folder, Settings(seeds=1))


# --- failures ---


def test_failure_loses_no_other_and_is_retried(
    finished: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(config: Any, checkpoint: Path | None, stop: Callable[[], bool]) -> dict[str, Any] | None:
        if config.sampler == "random" and config.seed == HELD_OUT_SEED:
            raise RuntimeError("out of memory, say")
        return play_episode(config, checkpoint, stop)

    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("ssdkd_agents.benchmarking.benchmark.play", failing)
        assert play(benchmark) == ["RuntimeError: out of memory, say"]
    assert len(benchmark.results()) == EPISODES - 1
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert [(f["label"], f["seed"]) for f in failures] == [("ssdkd, random", HELD_OUT_SEED)]
    assert all("Traceback" in failure["details"] for failure in failures)

    again = Benchmark.resume(tmp_path / "out", Settings())
    assert play(again) == []
    assert lines_of(again) == lines_of(finished)
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_diverged_student_is_a_result(tmp_path: Path) -> None:
    env_kwargs = {"budget": BUDGET, "student": {"lr": 1e30}}
    benchmark = Benchmark.new(tmp_path / "out", Settings(methods=("ssdkd",), env_kwargs=env_kwargs, seeds=1))
    assert play(benchmark) == []
    assert benchmark.results()[0]["final"]["diverged"] is True
    assert "| 1 (1 diverged) |" in benchmark.report()


# --- the report ---


def test_report_is_written_from_the_lines_alone(finished: Benchmark, tmp_path: Path) -> None:
    table = Benchmark.open(finished.folder).report()
    assert (finished.folder / "table.md").read_text() == table + "\n"
    assert table.count("\n| own |") == table.count("\n| random |") == 2, "of the accuracy and of the return"
    assert "4 of 4 episodes" in table
    for name in ("accuracy-seconds.png", "distributions.png"):
        assert (finished.folder / name).stat().st_size > 1000
        (finished.folder / name).unlink()
    (finished.folder / "table.md").unlink()


def test_report_of_the_suite_scale_has_its_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suites, "SCALES", (0.01, 0.1))
    budget = {key: value for key, value in BUDGET.items() if key != "buffer_capacity"} | {"candidates": 50}
    settings = Settings(suite="scale", env_kwargs={"budget": budget | {"inversion_steps": 1, "rounds": 1}}, seeds=1)
    benchmark = Benchmark.new(tmp_path / "out", settings)
    assert play(benchmark) == []
    assert benchmark.report().count("| SSD-KD, ") == 2
    assert (tmp_path / "out" / "scale.png").stat().st_size > 1000


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    benchmark = Benchmark.new(tmp_path / "out", SETTINGS)
    with pytest.raises(InvalidInputError, match="holds no finished episode yet"):
        benchmark.report()


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (Settings(), "nothing to compare; give --suite, or --methods and --samplers"),
        (Settings(suite="nope"), "suite='nope' is unknown; choose one of: ablation"),
        (Settings(suite="ablation", methods=("ssdkd",)), "exclude each other"),
        (Settings(suite="ablation", samplers=("own",)), "exclude each other"),
        (replace(SETTINGS, seeds=0), "seeds=0: expected 1 to 100,000"),
        (replace(SETTINGS, first_seed=-1), "first_seed=-1"),
        (replace(SETTINGS, methods=("nope",)), "method='nope' is unknown"),
        (replace(SETTINGS, methods=("ssdkd", "ssdkd")), "'ssdkd' is given twice"),
        (replace(SETTINGS, samplers=("nope",)), "sampler='nope'"),
        (replace(SETTINGS, env_id="SSDKD/Nope-v2"), "env_id='SSDKD/Nope-v2' is unknown"),
        (replace(SETTINGS, env_kwargs={"bogus": 1}), "bogus"),
        (replace(SETTINGS, env_kwargs={"budget": {"bogus": 1}}), "budget has no setting 'bogus'"),
        (replace(SETTINGS, env_kwargs={"budget": 3}), r"env_kwargs\['budget'\]=3"),
        (replace(SETTINGS, env_kwargs={"method_options": 3}), r"env_kwargs\['method_options'\]=3"),
        (replace(SETTINGS, env_kwargs={"method": "dfq"}), "use --methods instead"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_anything_is_written(settings: Settings, match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        Benchmark.new(tmp_path / "out", settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_folder_that_is_not_empty_is_refused(finished: Benchmark) -> None:
    with pytest.raises(InvalidInputError, match="is not empty; continue it with --resume, or choose another folder"):
        Benchmark.new(finished.folder, SETTINGS)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (Settings(methods=("dfq",)), r"methods=\['dfq'\], but .* was made with methods=\['ssdkd'\]"),
        (Settings(samplers=("own",)), "samplers"),
        (Settings(suite="ablation"), "suite='ablation', but .* was made with suite=None"),
        (Settings(env_id="SSDKD/CIFAR10-v2"), "env_id='SSDKD/CIFAR10-v2'"),
        (Settings(env_kwargs={"budget": BUDGET | {"rounds": 2}}), "env_kwargs"),
        (Settings(first_seed=5), "first_seed=5"),
    ],
    ids=str,
)
def test_other_settings_are_not_resumed(given: Settings, match: str, finished: Benchmark) -> None:
    before = (finished.folder / "config.json").read_bytes()
    with pytest.raises(InvalidInputError, match=match):
        Benchmark.resume(finished.folder, given)
    assert (finished.folder / "config.json").read_bytes() == before


def test_the_same_settings_are_resumed(finished: Benchmark) -> None:
    given = replace(SETTINGS, env_id="SSDKD/Digits-v2", first_seed=HELD_OUT_SEED)
    assert Benchmark.resume(finished.folder, given).plan == finished.plan


def copied(finished: Benchmark, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The finished benchmark with a change in its second line."""
    folder.mkdir()
    (folder / "config.json").write_bytes((finished.folder / "config.json").read_bytes())
    lines = read_lines(finished.folder / "results.jsonl")
    change(lines[1])
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda line: line["env_kwargs"]["budget"].update(rounds=99), "has another env_kwargs than config.json"),
        (lambda line: line.update(sampler="uniform"), "has another sampler than config.json"),
        (lambda line: line.update(label="foreign"), "has a line of .*foreign.* which is not in config.json"),
        (lambda line: line.update(seed=3), "which is not in config.json"),
        (lambda line: line.clear(), "line 2: it lacks env_id; delete that line"),
        (lambda line: line.pop("distributions"), "line of .*: it lacks distributions; delete it, to play it anew"),
        (lambda line: line.pop("machine"), "it lacks machine"),
        (lambda line: line["machine"].update(cpu="\x1b[2J"), "machine.cpu: expected str matching"),
        (lambda line: line["final"].update(diverged=None), "final.diverged: expected bool, got null"),
        (lambda line: line["distributions"].update(class_counts=[-1.0]), "class_counts.*: expected float >= 0.0"),
        (lambda line: line["curve"].update(accuracy=[0.5]), r"has curves of \[1, \d+\] steps; delete it"),
    ],
)
def test_lines_of_another_benchmark_are_refused(
    change: Callable[[dict[str, Any]], object], match: str, finished: Benchmark, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "out", change)
    with pytest.raises(InvalidInputError, match=match):
        Benchmark.resume(folder, Settings())


def test_lines_of_one_entry_have_the_same_classes(finished: Benchmark, tmp_path: Path) -> None:
    entries = len(finished.plan.entries)
    folder = copied(finished, tmp_path / "out", lambda line: line["distributions"].update(class_counts=[1.0]))
    lines = read_lines(folder / "results.jsonl")
    assert len(lines) == 2 * entries
    with pytest.raises(InvalidInputError, match=r"has other classes or bins than those before; delete it"):
        Benchmark.open(folder).results()


def test_damaged_line_in_the_middle_is_refused(finished: Benchmark, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "out", lambda line: None)
    path = folder / "results.jsonl"
    path.write_text("not json\n" + path.read_text())
    with pytest.raises(InvalidInputError, match="not JSON"):
        Benchmark.open(folder).results()


@pytest.mark.parametrize("config", ["{}", "[1]", '{"plan": {}, "settings": {}}', '{"plan": 3, "settings": 3}'])
def test_folder_of_something_else_is_not_opened(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        Benchmark.open(tmp_path)
    with pytest.raises(InvalidInputError, match="holds no run"):
        Benchmark.open(tmp_path / "none")


def test_jobs_have_checkpoints_of_their_own() -> None:
    plan = Plan("", "id", {}, (Entry("a"), Entry("b")), seeds=3)
    paths = {replace(job, folder="out").checkpoint for job in plan.jobs()}
    assert len(paths) == 6
    assert Job(1, "b", plan.jobs()[1].config, "out").checkpoint == Path(f"out/unfinished/1-{HELD_OUT_SEED}.json")
