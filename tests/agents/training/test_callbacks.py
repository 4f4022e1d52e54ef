"""What the callback writes, read back from TensorBoard's own files."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ssdkd_agents.curves import METRICS
from ssdkd_agents.policies.algorithms import ALGORITHMS, algorithm_class
from ssdkd_agents.training.callbacks import EPISODE_TAGS, LOSS_TAGS, ROUND_TAGS, DistillationCallback
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import plugin_data_pb2  # type: ignore[import-untyped]

import ssdkd_env  # noqa: F401 — registers the ids
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.named_plans import NAMED_PLANS
from tests.envs.episodes import BUDGET, ROUNDS, SMALL_PROBE, WORK_BUDGET

ID = "ssdkd_env:SSDKD/Digits-v2"
ACTION_NAMES = (
    "discrepancy_exponent",
    "diversity_exponent",
    "difficulty_exponent",
    "importance_exponent",
    "replaced_share",
)
#: Of digits, which are images.
OF_IMAGES = {tag: key for tag, key in EPISODE_TAGS.items() if key != "mean_iou"}
EXPECTED = {*OF_IMAGES, *ROUND_TAGS, *(f"action/{name}" for name in ACTION_NAMES), "rollout/ep_rew_mean"}
SETTINGS = {"algorithm": "x", "learning_rate": 3e-4, "net_arch": None, "normalize": True}


class Witness(BaseCallback):
    """Keeps what the environments answered and what they received."""

    def __init__(self) -> None:
        super().__init__()
        self.infos: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.actions: list[Any] = []
        self.choices: list[Any] = []

    def _on_step(self) -> bool:
        self.infos += self.locals["infos"]
        self.ends += [info for info in self.locals["infos"] if "terminal_observation" in info]
        self.choices += list(self.locals["actions"])
        self.actions += list(np.clip(self.locals["actions"], -1.0, 1.0))
        return True


def environments(
    count: int = 1, kind: type[DummyVecEnv] | type[SubprocVecEnv] = DummyVecEnv, **arguments: Any
) -> VecEnv:
    worker = {"start_method": "spawn"} if kind is SubprocVecEnv else {}
    env = make_vec_env(
        ID,
        count,
        seed=0,
        env_kwargs={"budget": BUDGET, "probe": SMALL_PROBE} | arguments,
        vec_env_cls=kind,
        vec_env_kwargs=worker,
    )
    return VecNormalize(env, norm_reward=False)


def ppo(env: VecEnv | gym.Env[Any, Any], folder: Path | None, n_steps: int = 6, **arguments: Any) -> PPO:
    log = None if folder is None else str(folder)
    return PPO(
        "MlpPolicy",
        env,
        n_steps=n_steps,
        batch_size=6,
        n_epochs=1,
        tensorboard_log=log,
        device="cpu",
        seed=0,
        **arguments,
    )


def written(folder: Path) -> EventAccumulator:
    """The one run under `folder`."""
    (run,) = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


def values(events: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in events.Scalars(tag)]


def pictures(events: EventAccumulator) -> list[Any]:
    from PIL import Image

    return [np.array(Image.open(io.BytesIO(event.encoded_image_string))) for event in events.Images("buffer/images")]


def layout_of(events: EventAccumulator) -> dict[str, list[str]]:
    """Category → tags of its charts."""
    (event,) = events.Tensors("custom_scalars__config__")
    message = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {c.title: [tag for chart in c.chart for tag in chart.multiline.tag] for c in message.category}


def test_choices_of_a_discrete_scheme_are_logged_as_shares(tmp_path: Path) -> None:
    witness = Witness()
    ppo(environments(2, action="plans"), tmp_path, 3).learn(6, callback=[DistillationCallback(SETTINGS), witness])
    events = written(tmp_path)
    shares = {name: values(events, f"action/{name}") for name in NAMED_PLANS}
    chosen = [int(action) for action in witness.choices]
    assert len(chosen) == 6
    for number, name in enumerate(NAMED_PLANS):
        assert shares[name] == pytest.approx([chosen.count(number) / 6])
    assert {f"action/{name}" for name in NAMED_PLANS} <= {tag for tags in layout_of(events).values() for tag in tags}


def test_ppo_writes_scalars_pictures_settings_and_layout(tmp_path: Path) -> None:
    ppo(environments(), tmp_path).learn(18, callback=DistillationCallback(SETTINGS, image_every_episodes=1))
    events = written(tmp_path)
    tags = events.Tags()
    assert set(tags["scalars"]) >= EXPECTED
    assert [len(values(events, tag)) for tag in ("student/accuracy", "buffer/replaced")] == [3, 3]
    assert len(pictures(events)) == 3
    tagged = [tag for category in layout_of(events).values() for tag in category]
    assert set(tagged) <= set(tags["scalars"]) and len(tagged) == len(set(tagged))
    assert {"rollout/ep_rew_mean", "student/accuracy", "action/replaced_share", "buffer/difficulty"} <= set(tagged)

    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert set(row) == set(SETTINGS)
    assert row["net_arch"].string_value == "None" and row["normalize"].string_value == "True"
    assert row["learning_rate"].number_value == 3e-4
    data = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = plugin_data_pb2.HParamsPluginData.FromString(data).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == list(METRICS)


def test_page_begins_with_the_validation_and_has_the_losses(tmp_path: Path) -> None:
    """But for the validation where nobody writes one: an empty chart says nothing."""
    for validated in (True, False):
        folder = tmp_path / str(validated)
        ppo(environments(), folder).learn(12, callback=DistillationCallback(validated=validated))
        events = written(folder)
        charts = layout_of(events)
        validation = ["eval/mean_reward", "eval/mean_accuracy"] if validated else []
        assert charts["Results"] == [
            *validation, "rollout/ep_rew_mean", "student/accuracy", "student/probe_agreement",
        ]  # fmt: skip
        assert charts["Losses of PPO"] == list(LOSS_TAGS["PPO"])
        assert list(charts)[:2] == ["Results", "Losses of PPO"]
        assert set(LOSS_TAGS["PPO"]) <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_losses_are_those_that_the_algorithm_logs(algorithm: str) -> None:
    made = algorithm_class(algorithm)
    logged = "".join(inspect.getsource(inspect.getmodule(part)) for part in made.__mro__[:2])  # type: ignore[arg-type]
    assert LOSS_TAGS[made.__name__]
    assert all(f'"{tag}"' in logged for tag in LOSS_TAGS[made.__name__])


def test_the_numbers_are_means_over_ended_episodes_and_over_rounds(tmp_path: Path) -> None:
    witness = Witness()
    ppo(environments(2), tmp_path).learn(12, callback=[DistillationCallback(), witness])
    events = written(tmp_path)
    assert len(witness.infos) == 12 and len(witness.ends) == 4
    for tag, key in OF_IMAGES.items():
        assert values(events, tag) == pytest.approx([np.mean([info[key] for info in witness.ends])])
    for tag, key in ROUND_TAGS.items():
        assert values(events, tag) == pytest.approx([np.mean([info[key] for info in witness.infos])])
    for name, mean in zip(ACTION_NAMES, np.mean(witness.actions, axis=0), strict=True):
        assert values(events, f"action/{name}") == pytest.approx([mean], rel=1e-5)


def test_sac_writes_the_same_and_loses_nothing_at_the_end(tmp_path: Path) -> None:
    model = SAC(
        "MlpPolicy",
        environments(),
        learning_starts=4,
        batch_size=4,
        policy_kwargs={"net_arch": [8]},
        tensorboard_log=str(tmp_path),
        device="cpu",
        seed=0,
    )
    # SAC logs every four episodes: the first log comes after 12 steps, the fifth episode ends later.
    model.learn(15, callback=DistillationCallback(SETTINGS, image_every_episodes=2))
    events = written(tmp_path)
    assert set(events.Tags()["scalars"]) >= EXPECTED
    assert [event.step for event in events.Scalars("student/accuracy")] == [12, 15]
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")] == [12, 15]
    assert [event.step for event in events.Images("buffer/images")] == [12, 15]


def test_the_picture_is_the_first_environments_buffer_late_in_the_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, Any]] = []
    original = SSDKDEnv.buffer_picture

    def picture(env: SSDKDEnv) -> Any:
        assert env.run is not None
        taken.append((env.run.round, original(env)))
        return taken[-1][1]

    monkeypatch.setattr(SSDKDEnv, "buffer_picture", picture)
    env = environments(2)
    # Four episodes of each environment, a log after each one.
    ppo(env, tmp_path, n_steps=3).learn(24, callback=DistillationCallback(image_every_episodes=2))
    assert [round_ for round_, _ in taken] == [ROUNDS - 1, ROUNDS - 1]
    for shown, (_, made) in zip(pictures(written(tmp_path)), taken, strict=True):
        np.testing.assert_array_equal(shown, made)


def test_episodes_that_divide_work_have_one_picture_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, float]] = []  # which episode, and how far it was
    original = SSDKDEnv.buffer_picture

    def picture(env: SSDKDEnv) -> Any:
        assert env.run is not None
        taken.append((id(env.run), env.run.allowance.progress))
        runs.append(env.run)  # so that no later one has its id
        return original(env)

    runs: list[Any] = []
    monkeypatch.setattr(SSDKDEnv, "buffer_picture", picture)
    env = environments(action="division", work_scale=0.02, budget=WORK_BUDGET)
    ppo(env, tmp_path, n_steps=16).learn(32, callback=DistillationCallback(image_every_episodes=1))
    assert len(taken) >= 2
    assert len({run for run, _ in taken}) == len(taken)
    assert all(0.6 <= progress < 1.0 for _, progress in taken)


def test_picture_is_of_a_step_that_is_not_the_last_where_steps_have_several_rounds(tmp_path: Path) -> None:
    """Three rounds: of two steps the first ends after two rounds, and a single step leaves no picture."""
    for held, tags in ((2, ["buffer/images"]), (3, [])):
        folder = tmp_path / str(held)
        ppo(environments(rounds_per_step=held), folder).learn(6, callback=DistillationCallback(image_every_episodes=1))
        assert written(folder).Tags()["images"] == tags


def test_no_picture_is_made_when_none_is_wanted(tmp_path: Path) -> None:
    ppo(environments(), tmp_path).learn(6, callback=DistillationCallback(image_every_episodes=0))
    assert written(tmp_path).Tags()["images"] == []


def test_worker_processes_are_logged_too(tmp_path: Path) -> None:
    env = environments(1, SubprocVecEnv)
    try:
        ppo(env, tmp_path).learn(6, callback=DistillationCallback(image_every_episodes=1))
    finally:
        env.close()
    events = written(tmp_path)
    assert set(events.Tags()["scalars"]) >= EXPECTED
    assert len(pictures(events)) == 1


def test_without_tensorboard_scalars_go_to_the_other_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: BaseAlgorithm = ppo(environments(), None)
    model.set_logger(configure(str(tmp_path), ["json", "csv", "log"]))
    model.learn(6, callback=DistillationCallback(SETTINGS, image_every_episodes=1, verbose=1))
    (line,) = (tmp_path / "progress.json").read_text().splitlines()
    assert set(json.loads(line)) >= EXPECTED
    assert "TensorBoard is off" in capsys.readouterr().out


def test_text_outputs_beside_tensorboard_do_not_choke_on_pictures(tmp_path: Path) -> None:
    model = ppo(environments(), None)
    model.set_logger(configure(str(tmp_path), ["json", "csv", "log", "tensorboard"]))
    model.learn(6, callback=DistillationCallback(SETTINGS, image_every_episodes=1))
    assert len(pictures(written(tmp_path))) == 1


def test_nothing_is_logged_without_any_output() -> None:
    ppo(environments(), None).learn(6, callback=DistillationCallback(SETTINGS, image_every_episodes=1))


def test_a_diverged_student_is_counted(tmp_path: Path) -> None:
    ppo(environments(student={"lr": 1e9}), tmp_path).learn(6, callback=DistillationCallback())
    assert values(written(tmp_path), "student/diverged") == [1.0]


def test_other_environments_are_trained_on_without_complaint(tmp_path: Path) -> None:
    ppo(gym.make("Pendulum-v1"), tmp_path).learn(6, callback=DistillationCallback(SETTINGS))
    tags = written(tmp_path).Tags()
    assert not EXPECTED & set(tags["scalars"]) and not tags["images"]
