"""What a run writes for TensorBoard, read back by TensorBoard's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssdkd_agents.curves import METRICS, RESULTS, SHOWN, Curves, layout_of
from tensorboard import context  # type: ignore[import-untyped]
from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
    data_provider,
    plugin_event_multiplexer,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins import base_plugin  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import custom_scalars_plugin  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups  # type: ignore[import-untyped]

from ssdkd_env.errors import InvalidInputError
from tests.agents.trainings import curves as curves_of


def page_of(logs: Path) -> base_plugin.TBContext:
    """What TensorBoard's pages are made of for a folder of runs."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logs))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logs))
    return base_plugin.TBContext(logdir=str(logs), multiplexer=multiplexer, data_provider=provider)


def table_of(logs: Path) -> tuple[Any, dict[str, Any]]:
    """Columns of the table *HParams*, and its rows by the name of the run."""
    backend, request = backend_context.Context(page_of(logs)), context.RequestContext()
    described = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(
        request, "", True, described, backend.hparams_from_data_provider(request, "", 0)
    )
    wanted = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        slice_size=10,
        col_params=[api_pb2.ColParams(metric=metric.name) for metric in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(request, backend, "", wanted).run().session_groups
    return experiment, {group.name: group for group in groups}


def test_points_are_in_the_file_at_once_and_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    written = Curves(tmp_path)
    written.scalars({"a": 0.5, "b": None}, 3)
    assert curves_of(tmp_path) == {"a": [(3, 0.5)]}
    written.scalars({"a": 1, "b": True}, 4)
    written.scalars({}, 5)
    assert curves_of(tmp_path) == {"a": [(3, 0.5), (4, 1.0)], "b": [(4, 1.0)]}


def test_steps_that_a_killed_process_wrote_are_hidden_once_they_are_written_again(tmp_path: Path) -> None:
    killed = Curves(tmp_path)
    for step in range(6):
        killed.scalars({"a": float(step)}, step)
    (file,) = (tmp_path / "tensorboard").iterdir()
    with open(file, "ab") as end:
        end.write(file.read_bytes()[-60:-20])  # in the middle of a record
    goes_on = Curves(tmp_path, first_step=4)
    for step in range(4, 8):
        goes_on.scalars({"a": 10.0 + step}, step)
    expected = [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0), (5, 15.0), (6, 16.0), (7, 17.0)]
    assert curves_of(tmp_path)["a"] == expected


def test_picture_is_what_was_given(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Curves(tmp_path).image("p", picture, 2)
    (event,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("p")
    assert (event.step, event.width, event.height) == (2, 4, 4)


def test_full_disk_is_a_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Curves(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(InvalidInputError, match=r"cannot write .*tfevents.*No space left on device; free some space"):
        written.scalars({"a": 1.0}, 0)


def test_place_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InvalidInputError, match="cannot write"):
        Curves(tmp_path / "run")


def described(run: Path, layout: dict[str, Any], settings: dict[str, Any], points: dict[str, float]) -> None:
    curves = Curves(run)
    curves.describe(layout, settings)
    curves.scalars(points, 1)


def test_page_of_several_commands_begins_with_the_results_of_all(tmp_path: Path) -> None:
    """In whichever order the runs are found."""
    described(tmp_path / "a", layout_of(["search/best"], {}), {}, {"search/best": 1.0})
    described(tmp_path / "b", layout_of(["student/accuracy"], {"Buffer": ["buffer/replaced"]}), {}, {})
    described(tmp_path / "c", layout_of(["eval/mean_reward"], {"Buffer": ["buffer/replaced"]}), {}, {})
    plugin = custom_scalars_plugin.CustomScalarsPlugin(page_of(tmp_path))
    page = plugin.layout_impl(context.RequestContext(), "")
    for name in ("search/best", "student/accuracy", "eval/mean_reward"):
        assert page.index(name) < page.index('"Buffer"')
    assert page.count("buffer/replaced") == 1


def test_charts_have_the_order_of_the_results_and_titles_in_words() -> None:
    layout = layout_of(reversed(RESULTS), {"None": [], "Losses": ["student/loss", "train/value_loss"]})
    assert list(layout) == ["Results", "Losses"]
    assert [tags for _, (tags,) in layout["Results"].values()] == list(RESULTS)
    assert layout["Losses"] == {"Student loss": ["Multiline", ["student/loss"]],
                                "Value loss": ["Multiline", ["train/value_loss"]]}  # fmt: skip


def test_table_has_the_columns_of_all_runs_and_the_last_values_of_the_curves(tmp_path: Path) -> None:
    """TensorBoard takes the columns from one of the runs, be it a search that has none of an agent's."""
    own = {"algorithm": "search", "seed": 3, "env_kwargs": {"budget": {"rounds": 4}}, "start": None, "on": True}
    described(tmp_path / "a", {}, own, {"search/best": 0.25})
    described(tmp_path / "b", {}, {"algorithm": "sac", "learning_starts": 7}, {"eval/mean_reward": 0.5})
    experiment, rows = table_of(tmp_path)
    columns = [column.name for column in experiment.hparam_infos]
    assert columns[: len(SHOWN)] == sorted(SHOWN), "of which TensorBoard shows five"
    assert {"learning_starts", "clip_range"} <= set(columns) and len(columns) == len(set(columns))
    assert [metric.name.tag for metric in experiment.metric_infos] == list(METRICS)
    first, second = rows["a/tensorboard"], rows["b/tensorboard"]
    assert first.hparams["env_kwargs"].string_value == "{'budget': {'rounds': 4}}"
    assert first.hparams["seed"].number_value == 3
    assert (first.hparams["start"].string_value, first.hparams["on"].string_value) == ("None", "True")
    assert second.hparams["learning_starts"].number_value == 7
    values = {name: {m.name.tag: m.value for m in row.metric_values} for name, row in rows.items()}
    assert values == {"a/tensorboard": {"search/best": 0.25}, "b/tensorboard": {"eval/mean_reward": 0.5}}
