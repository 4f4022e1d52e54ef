"""Workers on a Ray cluster: the same answers, whatever a worker answered before; one that dies, or whose node does."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ssdkd_agents.benchmarking.experiments import EpisodeConfig, run_episodes
from ssdkd_agents.workers import Outcome, run_jobs

from ssdkd_env.cluster import Needs, RayCluster
from ssdkd_env.envs.sub_environments import SubEnvironments
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.executors import WorkerDied
from ssdkd_env.processes import Processes

TINY = {"rounds": 2, "warmup_rounds": 1, "candidates": 8, "inversion_steps": 1, "student_steps": 2, "batch_size": 8}


def answer(question: Any, stop: Callable[[], bool]) -> Any:
    """What the question says."""
    if isinstance(question, np.ndarray):
        torch.from_numpy(question).add_(1)  # as an operation in place does
        return question
    if question == "fail":
        raise ValueError("no such thing")
    if question == "die":
        os._exit(7)
    if question == "wait until stopped":
        while not stop():
            time.sleep(0.01)
        return "stopped"
    if question == "leave a mess":
        torch.set_num_threads(4)
        torch.set_default_dtype(torch.float64)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(7)
        return torch.get_num_threads()
    if question == "what is it like?":
        return torch.get_num_threads(), str(torch.get_default_dtype()), ray.get_gpu_ids()
    return question


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes of this machine, of one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level=logging.WARNING)
    yield cluster
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def cluster(nodes: Cluster) -> RayCluster:
    return RayCluster(nodes.address)


@pytest.fixture
def worker(cluster: RayCluster) -> Iterator[Any]:
    worker = cluster.start(answer, "of a test", "Try again")
    yield worker
    worker.close(patience=0)


def ask(worker: Any, question: Any) -> Any:
    worker.ask(question)
    return worker.take()


def test_as_many_workers_as_the_nodes_have_room_for(nodes: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert RayCluster(nodes.address).count == 2
    assert RayCluster(nodes.address, needs=Needs(cpus_per_job=0.25)).count == 8
    assert RayCluster(nodes.address, count=5).count == 5
    assert capsys.readouterr().err == ""
    assert RayCluster(nodes.address, needs=Needs(gpus_per_job=0.5)).count == 1
    assert "no node of the cluster has room for one worker, which needs {'CPU': 1.0, 'GPU': 0.5}" in (
        capsys.readouterr().err
    )


def test_a_worker_answers_as_if_it_had_answered_nothing_before(cluster: RayCluster, worker: Any) -> None:
    assert ask(worker, "leave a mess") == 4
    assert ask(worker, "what is it like?") == (1, "torch.float32", [])
    with pytest.raises(ValueError, match="no such thing") as caught:
        ask(worker, "fail")
    assert "in answer" in str(caught.value.__cause__), "the traceback of the worker"
    worker.ask("lost")
    assert ask(worker, "b") == "b"
    with pytest.raises(InvalidInputError, match="a worker of a test on the cluster can be neither copied nor pickled"):
        __import__("pickle").dumps(worker)


def test_arrays_are_copies_that_both_sides_may_write_in(worker: Any) -> None:
    sent = np.zeros(2**20, dtype=np.float32)  # larger than what Ray sends beside its object store
    for expected in (1, 1):
        received = ask(worker, sent)
        assert (received == expected).all() and (sent == 0).all()
        received += 1


def test_what_cannot_be_sent_is_an_error_of_the_answer(worker: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot pickle|not serializable"):
        ask(worker, __import__("threading").Lock())
    assert ask(worker, "a") == "a"


def test_early_end_is_told_while_it_answers(cluster: RayCluster, worker: Any) -> None:
    worker.ask("wait until stopped")
    assert cluster.ready([worker], timeout=0.2) == []
    worker.leave()
    assert cluster.ready([worker], timeout=60) == [worker]
    assert worker.take() == "stopped"


def test_death_is_one_line(cluster: RayCluster, worker: Any) -> None:
    worker.ask("die")
    assert cluster.ready([worker], timeout=60) == [worker]
    with pytest.raises(WorkerDied, match=r"^a worker of a test on the cluster has died \(.+\)\. Try again$") as caught:
        worker.take()
    assert "\n" not in str(caught.value)
    assert not worker.is_alive


def work(job: str, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """What a job's name says."""
    kind, _, path = job.partition(" ")
    if kind == "die" or (kind == "die-at-first" and not Path(path).exists()):
        Path(path).touch()
        os._exit(7)
    if kind == "begin":
        Path(path).with_suffix(".pid").write_text(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}")
        Path(path).touch()
        while Path(path).exists():
            time.sleep(0.05)
    return {"node": ray.get_runtime_context().get_node_id()}


def test_job_whose_worker_dies_is_done_again_a_bounded_number_of_times(
    cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = ["a", f"die-at-first {tmp_path / 'once'}", f"die {tmp_path / 'each'}", "b"]
    made: dict[str, Outcome[str]] = {each.job: each for each in run_jobs(work, jobs, cluster, lambda: False)}
    assert [bool(made[job].result) for job in jobs] == [True, True, False, True]
    assert made[jobs[2]].error.startswith("after 4 tries: a worker of a job on the cluster has died")
    assert capsys.readouterr().err.count("a job is done once more") == 4


def test_node_that_dies_costs_nothing_but_time(
    nodes: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = nodes.add_node(num_cpus=2)
    cluster = RayCluster(nodes.address)
    assert cluster.count == 4
    begun = [tmp_path / str(number) for number in range(4)]
    made = []
    for outcome in run_jobs(work, [f"begin {path}" for path in begun], cluster, _after_all(begun, nodes, third)):
        made.append(outcome)
    assert sorted(outcome.job for outcome in made if outcome.result) == [f"begin {path}" for path in begun]
    assert capsys.readouterr().err.count("a job is done once more") == 2


def _after_all(begun: list[Path], nodes: Cluster, doomed: Any) -> Callable[[], bool]:
    """Asked now and then: takes the node away once all jobs have begun, then lets all end."""
    gone: list[bool] = []

    def never() -> bool:
        there = [path for path in begun if path.exists()]
        if not gone and len(there) == len(begun):
            gone.append(True)
            nodes.remove_node(doomed, allow_graceful=False)
            for path in there:
                node, process = path.with_suffix(".pid").read_text().split()
                if node == doomed.node_id:  # else it may live for long enough to tell what it has done
                    os.kill(int(process), signal.SIGKILL)
        elif gone:
            for path in there:
                path.unlink()
        return False

    return never


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    """Without what clocks and the machine's memory say."""
    rest = {name: value for name, value in line.items() if name not in ("seconds", "machine") and "memory" not in name}
    rest["curve"] = {name: values for name, values in line["curve"].items() if "seconds" not in name}
    return rest


def test_episodes_are_those_of_one_process(cluster: RayCluster) -> None:
    configs = [
        EpisodeConfig("SSDKD/Digits-v2", sampler, seed, {"budget": TINY})
        for seed in (1, 2)
        for sampler in ("paper", "random")
    ]
    here = [timeless(line) for line in run_episodes(configs, Processes(1))]
    assert [timeless(line) for line in run_episodes(configs, cluster)] == here


def test_environments_of_a_killed_worker_go_on(nodes: Cluster, cluster: RayCluster) -> None:
    kwargs: dict[str, Any] = {"budget": TINY}
    shown = []
    for executor in (None, cluster):
        with closing(SubEnvironments(2, kwargs, "process", 2 if executor else 1, executor)) as pool:
            moments: list[Any] = [pool.reset({0: 1, 1: 2})]
            for _ in range(TINY["rounds"]):
                if executor:
                    ray.kill(pool._parts[1]._worker._actor)  # type: ignore[attr-defined]
                moments.append(pool.step(dict.fromkeys(range(2), pool.first.paper_action)))
            shown.append(repr(moments))
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus_per_job": 0}, "cpus_per_job=0: expected a number above 0"),
        ({"gpus_per_job": -1}, "gpus_per_job=-1: expected a share of one from 0 to 1, or a whole number"),
        ({"gpus_per_job": 1.5}, "gpus_per_job=1.5: expected a share of one from 0 to 1, or a whole number"),
        ({"memory_per_job": float("nan")}, "memory_per_job=nan: expected a number above 0"),
    ],
)
def test_needs_that_do_not_fit_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Needs(**arguments)


def test_needs_are_counted_by_node() -> None:
    needs = Needs(cpus_per_job=2, gpus_per_job=0.25, memory_per_job=1)
    assert needs.fit({"CPU": 16.0, "GPU": 1.0, "memory": 2.0**33}) == 4
    assert needs.fit({"CPU": 16.0, "memory": 2.0**33}) == 0
    assert needs.fit({"CPU": 16.0, "GPU": 8.0, "memory": 3.0 * 2**30}) == 3
