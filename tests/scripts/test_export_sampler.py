"""`export_sampler`: a trained sampler becomes a folder to hand on, and so does an archive of Stable-Baselines3."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.policies.storage import load_sampler, save_sampler
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from tests.agents.policies.test_storage import config_of, trained
from tests.agents.policies.test_unpickled import WRITERS
from tests.envs.episodes import make
from tests.scripts.bad_files import Evil, marker
from tests.scripts.commands import Result, assert_refused, in_process_of_its_own, in_this_process


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with one checkpoint. Tests leave it as it is."""
    path = tmp_path_factory.mktemp("runs") / "ppo"
    save_sampler(path / "checkpoints" / "8.safetensors", *trained("ppo"), with_replay=True)
    return path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What plain Stable-Baselines3 code leaves, and beside it what its agent does."""
    folder, env = tmp_path_factory.mktemp("plain"), make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models: dict[str, BaseAlgorithm] = {
            "ppo": PPO("MlpPolicy", env, n_steps=4, batch_size=4, device="cpu", seed=1),
            "small": PPO("MlpPolicy", env, n_steps=4, batch_size=4, policy_kwargs={"net_arch": [9]}, device="cpu"),
            "sac": SAC("MlpPolicy", env, buffer_size=10, device="cpu", seed=1),
        }
    for name, model in models.items():
        model.save(folder / f"{name}.zip")
        np.save(folder / f"{name}.npy", model.predict(observations(), deterministic=True)[0])
    return {name: folder / f"{name}.zip" for name in models}


def observations() -> Any:
    return np.random.default_rng(0).uniform(0, 1, (7, 25)).astype(np.float32)


def answers(path: Path) -> Any:
    return load_sampler(str(path), make()).predict(observations(), deterministic=True)[0]


def export(out: Path, *arguments: object) -> Result:
    return in_this_process("export_sampler", "--out", out, *arguments)


def test_run_is_exported_and_acts_the_same(run: Path, tmp_path: Path) -> None:
    for index, sampler in enumerate((run, run / "checkpoints" / "8.safetensors")):
        out = tmp_path / f"mine{index}"
        result = export(out, "--sampler", sampler)
        assert result.code == 0, result.stderr
        assert f"{out}: ppo for SSDKD/Digits-v2" in result.stdout
        np.testing.assert_array_equal(answers(out), answers(run))


def test_command_line_works(run: Path, tmp_path: Path) -> None:
    result = in_process_of_its_own("export_sampler", "--out", tmp_path / "mine", "--sampler", run)
    assert result.code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["policy.safetensors", "sampler.json"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ppo", ("--algo", "ppo")),
        ("sac", ("--algo", "sac")),
        ("small", ("--algo", "ppo", "--hyperparameters", 'policy_kwargs={"net_arch": [9]}')),
    ],
)
def test_archive_of_plain_code_is_exported(
    name: str, arguments: tuple[str, ...], archives: dict[str, Path], tmp_path: Path
) -> None:
    result = export(tmp_path / "mine", "--sampler", archives[name], *arguments)
    assert result.code == 0, result.stderr
    np.testing.assert_allclose(answers(tmp_path / "mine"), np.load(archives[name].with_suffix(".npy")), atol=1e-6)
    settings = json.loads((tmp_path / "mine" / "sampler.json").read_text())
    assert settings["normalization"] is None
    assert settings["env_id"] == "SSDKD/Digits-v2"


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("small", ("--algo", "ppo"), "--hyperparameters policy=MlpPolicy"),
        ("ppo", ("--algo", "ppo", "--hyperparameters", 'policy_kwargs={"net_arch": [9]}'), "--hyperparameters"),
        ("ppo", ("--algo", "sac"), "--algo"),
        ("ppo", ("--algo", "dqn"), "--env.action plans"),
        ("ppo", (), "--algo, such as ppo"),
        ("ppo", ("--algo", "pppo"), "algo='pppo' is unknown"),
        ("ppo", ("--algo", "ppo", "--env-id", "SSDKD/None-v2"), "env_id='SSDKD/None-v2' is unknown"),
        ("ppo", ("--algo", "ppo", "--hyperparameters", "bogus=1"), "bogus"),
    ],
)
def test_archive_that_does_not_fit_is_refused(
    name: str, arguments: tuple[str, ...], match: str, archives: dict[str, Path], tmp_path: Path
) -> None:
    assert_refused(export(tmp_path / "mine", "--sampler", archives[name], *arguments), match)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["model.zip", "model.safetensors", "run/checkpoints/5.safetensors"])
def test_nothing_read_is_executed(write: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, Evil(marker(tmp_path)))
    sampler = tmp_path / "run" if name.startswith("run") else path
    for arguments in ((), ("--algo", "ppo")):
        assert_refused(export(tmp_path / "mine", "--sampler", sampler, *arguments), "")
    assert not marker(tmp_path).exists()
    assert not (tmp_path / "mine").exists()


def test_wrong_arguments_are_refused(run: Path, tmp_path: Path) -> None:
    assert_refused(export(tmp_path / "mine", "--sampler", tmp_path / "none"), "none does not exist")
    assert_refused(export(tmp_path / "mine", "--sampler", run, "--algo", "ppo"), "a run knows its own")
    assert_refused(export(run, "--sampler", run), "exists; choose another folder")
    (tmp_path / "constant.json").write_text(json.dumps({"action": [0] * 5, "action_names": list(make().action_names)}))
    assert_refused(export(tmp_path / "mine", "--sampler", tmp_path), "copy the folder as it is")
    assert not (tmp_path / "mine").exists()


def test_run_in_another_scheme_names_its_entries(tmp_path: Path) -> None:
    """The folder belongs to the environment of the run, not to the one that is there by default."""
    model, config = trained("ppo")
    save_sampler(tmp_path / "s.safetensors", model, config | {"env_kwargs": {"reward": "probe_discrepancy"}})
    assert export(tmp_path / "mine", "--sampler", tmp_path / "s.safetensors").code == 0
    settings = json.loads((tmp_path / "mine" / "sampler.json").read_text())
    assert settings["env_kwargs"] == {"reward": "probe_discrepancy"}
    assert settings["hyperparameters"] == config_of("ppo")["hyperparameters"]
