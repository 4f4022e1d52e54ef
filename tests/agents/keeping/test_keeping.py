"""Keeping runs: what is written, what is known of a run, and what is refused or found wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssdkd_agents.archives import compress
from ssdkd_agents.keeping.entry import Played, keep, kept_name
from ssdkd_agents.keeping.index import BEGIN, END, problems, ranges, shown, table, write_readme
from ssdkd_agents.keeping.manifest import Experiment, damages, read_manifest, write_manifest

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import contents

MACHINE = {"cpu": "one", "cores": 2, "device": "cpu"}
LINES: list[dict[str, Any]] = [
    {
        "env_id": "SSDKD/Digits-v2",
        "seed": seed,
        "machine": MACHINE,
        "versions": {"source": "abc"},
    }
    for seed in (11, 9, 10)
]


def make_run(folder: Path, lines: list[dict[str, Any]] = LINES, file: str = "results.jsonl") -> Path:
    folder.mkdir(parents=True)
    (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "table.md").write_text("| a |\n")
    (folder / "curve.png").write_bytes(b"\x89PNG")
    (folder / "config.json").write_text("{}")
    (folder / "command.txt").write_text("ssdkd benchmark --out x\n")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A run, an empty folder of results, and a document that shows what will be in it."""
    make_run(tmp_path / "run")
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "evidence.md").write_text("From `a-b`: ![curve](../results/a-b-curve.png), and `other`.\n")
    return tmp_path


def played(project: Path, **changes: Any) -> Played:
    return replace(Played(project / "run", files=("table.md", "curve.png")), **changes)


# --- keeping ---


def test_lines_are_compressed_and_what_is_known_stands_in_the_manifest(project: Path) -> None:
    said = {"about": "it all", "commits": ["123abcd"]}
    kept = keep(played(project, said=said), "a-b", project / "results")
    lines = (project / "run" / "results.jsonl").read_bytes()
    assert kept == Experiment(
        about="it all",
        command="ssdkd benchmark --out x",
        commits=["123abcd"],
        sources=["abc"],
        environments=["SSDKD/Digits-v2"],
        seeds=[9, 10, 11],
        machines=[MACHINE],
        lines=3,
        sha256=hashlib.sha256(lines).hexdigest(),
        unfinished=False,
        files={name: ["docs/evidence.md"] for name in ("a-b-curve.png", "a-b.jsonl.gz", "a-b.md")},
    )
    written = contents(project / "results")
    assert set(written) == {"a-b-curve.png", "a-b.jsonl.gz", "a-b.md", "manifest.json", "README.md"}
    assert gzip.decompress(written["a-b.jsonl.gz"]) == lines
    assert (written["a-b.md"], written["a-b-curve.png"]) == (b"| a |\n", b"\x89PNG")
    assert read_manifest(project / "results") == {"a-b": kept}
    assert not list(problems(project / "results", {"a-b": kept}))


def test_the_same_run_gives_the_same_folder(project: Path) -> None:
    for into in ("results", "again/results"):
        for name in ("b", "a"):
            keep(played(project), name, project / into)
    assert contents(project / "results")["a.jsonl.gz"] == contents(project / "again" / "results")["a.jsonl.gz"]
    manifest = (project / "results" / "manifest.json").read_text()
    assert list(json.loads(manifest)) == ["a", "b"]
    assert all(list(entry) == sorted(entry) for entry in json.loads(manifest).values())
    assert manifest.count("\n") == 2 + 2 * (2 + 11)  # a line for each thing known


def test_measurement_and_what_lies_beside_it_are_kept(tmp_path: Path) -> None:
    """The last line says what it was; nothing says what was typed."""
    last = {"settings": {"env": "SSDKD/Digits-v1"}, "versions": {"source": "abc"}, "machine": MACHINE}
    folder = make_run(tmp_path / "runs", [{"seed": 1}, last], "plans.jsonl")
    (folder / "plans.txt").write_text("table")
    (folder / "plans-validity.png").write_bytes(b"\x89PNG")
    kept = keep(Played(folder / "plans.jsonl", files=("plans.txt", "plans-validity.png")), "p", tmp_path / "results")
    assert set(kept.files) == {"p.jsonl.gz", "p.txt", "p-validity.png"}
    assert (kept.command, kept.commits) == (None, None)
    assert (kept.environments, kept.sources, kept.machines) == (["SSDKD/Digits-v1"], ["abc"], [MACHINE])


def test_what_lines_leave_out_is_taken_from_the_folder(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"timesteps": 8, "seed": 3}], "episodes.jsonl")
    config = {"env_id": "SSDKD/Digits-v2", "versions": {"source": "def"}, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "machine.json").write_text(json.dumps(MACHINE | {"chosen": "loop"}))
    kept = keep(Played(folder, "episodes.jsonl"), "x", tmp_path / "results")
    assert (kept.environments, kept.sources) == (["SSDKD/Digits-v2"], ["def"])
    assert (kept.machines, kept.seeds) == ([MACHINE], [3])


def test_what_nothing_says_is_null(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"x": 1, "seed": "one", "env_id": 3, "versions": 3, "machine": []}])
    (folder / "command.txt").unlink()
    kept = keep(Played(folder), "x", tmp_path / "results")
    unknown = {key for key, value in vars(kept).items() if value is None}
    assert unknown == {"about", "command", "commits", "sources", "environments", "seeds", "machines"}
    assert json.loads((tmp_path / "results" / "manifest.json").read_text())["x"]["seeds"] is None


@pytest.mark.parametrize(
    ("file", "lines", "kept"),
    [
        ("table.md", "results.jsonl", "n.md"),
        ("curve.png", "results.jsonl", "n-curve.png"),
        ("results-all.png", "results.jsonl", "n-all.png"),
        ("plans.txt", "plans.jsonl.gz", "n.txt"),
        ("plans-validity.png", "plans.jsonl", "n-validity.png"),
        ("plansgone.png", "plans.jsonl", "n-plansgone.png"),
    ],
)
def test_kept_files_have_names_of_the_experiment(file: str, lines: str, kept: str) -> None:
    assert kept_name("n", file, Path(lines)) == kept


# --- going on ---


def test_unfinished_lines_stay_as_they_are_beside_their_configuration(project: Path) -> None:
    into = project / "results"
    keep(played(project, unfinished=True, said={"about": "slow", "commits": ["1"]}), "a-b", into)
    assert {"a-b.jsonl", "a-b-config.json"} < set(contents(into))
    assert contents(into)["a-b.jsonl"] == (project / "run" / "results.jsonl").read_bytes()
    with (project / "run" / "results.jsonl").open("a") as file:
        file.write(json.dumps(LINES[0] | {"seed": 12}) + "\n")
    kept = keep(played(project), "a-b", into, overwrite=True)
    assert set(contents(into)) == {"a-b-curve.png", "a-b.jsonl.gz", "a-b.md", "manifest.json", "README.md"}
    assert (kept.about, kept.commits, kept.seeds, kept.unfinished) == ("slow", ["1"], [9, 10, 11, 12], False)
    assert not list(problems(into, read_manifest(into)))


def test_lines_that_were_added_in_the_folder_itself_are_kept_where_they_lie(project: Path) -> None:
    into = project / "results"
    keep(played(project, files=(), unfinished=True), "a-b", into)
    with (into / "a-b.jsonl").open("a") as file:
        file.write(json.dumps(LINES[0] | {"seed": 12}) + "\n")
    assert [line for line in damages(into, read_manifest(into)) if "a-b.jsonl has other lines" in line]
    again = Played(into / "a-b.jsonl", files=("a-b-config.json",), unfinished=True)
    kept = keep(again, "a-b", into, overwrite=True)
    assert (kept.lines, set(kept.files)) == (4, {"a-b.jsonl", "a-b-config.json"})
    assert not list(problems(into, read_manifest(into)))


def test_another_source_needs_its_commits_again(project: Path) -> None:
    keep(played(project, said={"about": "x", "commits": ["1"]}), "a-b", project / "results")
    make_run(project / "other", [line | {"versions": {"source": "new"}} for line in LINES])
    (project / "other" / "command.txt").unlink()
    kept = keep(Played(project / "other"), "a-b", project / "results", overwrite=True)
    assert (kept.about, kept.commits, kept.command) == ("x", None, None)


# --- refusals ---


def test_nothing_is_overwritten_unasked(project: Path) -> None:
    into = project / "results"
    keep(played(project), "a-b", into)
    before = contents(into)
    with pytest.raises(InvalidInputError, match=r"name='a-b' is in .*manifest\.json already; .* with --overwrite"):
        keep(played(project), "a-b", into)
    (into / "new.md").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"name='new' is in .*new\.md already; choose another name"):
        keep(played(project), "new", into)
    (project / "run" / "b.md").touch()
    with pytest.raises(InvalidInputError, match=r"name='a': a-b\.md is a file of a-b; choose another name"):
        keep(played(project, files=("b.md",)), "a", into, overwrite=True)
    assert contents(into) == before | {"new.md": b"mine"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"files": ("none.md",)}, r"cannot read .*none\.md: .*; give a file that the run has"),
        ({"files": ("../run/table.md",)}, r"files='\.\./run/table\.md': expected names of files in .*run, each once"),
        ({"files": ("table.md", "table.md")}, r"files='table\.md': expected names of files"),
        ({"lines": "none.jsonl"}, r"cannot read .*none\.jsonl"),
        ({"lines": "table.md"}, r"table\.md, line 1 is not JSON"),
        ({"lines": "empty.jsonl"}, r"empty\.jsonl holds no line; keep a run that has played something"),
    ],
)
def test_run_that_cannot_be_kept_leaves_everything_as_it_was(project: Path, changes: Any, match: str) -> None:
    (project / "run" / "empty.jsonl").touch()
    before = contents(project)
    with pytest.raises(InvalidInputError, match=match):
        keep(played(project, **changes), "a-b", project / "results")
    assert contents(project) == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "a_b", "-a", "a b", "manifest.json", "a\n"])
def test_name_that_no_file_should_have_is_refused(project: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="expected small letters, digits and hyphens"):
        keep(played(project), name, project / "results")


def test_readme_without_a_place_for_the_table_is_refused_before_anything_is_written(project: Path) -> None:
    (project / "results" / "README.md").write_text("# Mine\n")
    with pytest.raises(InvalidInputError, match=r"README\.md has no place for the table; add the lines <!-- "):
        keep(played(project), "a-b", project / "results")
    assert contents(project / "results") == {"README.md": b"# Mine\n"}


def test_interrupted_keeping_leaves_whole_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever write it stops at, no entry stands in the manifest whose files are not there."""
    rename, into = os.replace, project / "results"
    for stop in range(5):
        left = [stop]

        def failing(source: Path, target: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            rename(source, target)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(KeyboardInterrupt):
            keep(played(project), "a-b", into, overwrite=True)
        monkeypatch.setattr(os, "replace", rename)
        assert not [line for line in damages(into, read_manifest(into)) if "is in no experiment" not in line]
        assert not [name for name in contents(into) if name.startswith(".")]


# --- the manifest ---


def test_damaged_manifest_is_refused(project: Path) -> None:
    path = project / "results" / "manifest.json"
    keep(played(project), "a-b", project / "results")
    good = json.loads(path.read_text())
    bad: list[Any] = [[], {"a-b": 3}, {"../x": good["a-b"]}, {"a-b": good["a-b"] | {"more": 1}}]
    odd = {
        "about": 3,
        "commits": "1",
        "seeds": ["1"],
        "machines": [1],
        "lines": None,
        "sha256": 3,
        "unfinished": 0,
        "files": {"../x": []},
    }
    bad += [{"a-b": good["a-b"] | {key: value}} for key, value in odd.items()]
    listed: list[Any] = [["x"], {"x": None}, {"x": [1]}, {"README.md": []}]
    bad += [{"a-b": good["a-b"] | {"files": files}} for files in listed]
    for value in bad:
        path.write_text(json.dumps(value))
        with pytest.raises(InvalidInputError, match=r"manifest\.json") as caught:
            read_manifest(project / "results")
        assert "\n" not in str(caught.value)
    path.write_text('{"a-b": ')
    with pytest.raises(InvalidInputError, match=r"manifest\.json is not valid JSON"):
        read_manifest(project / "results")


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda into: (into / "more.png").touch(), "more.png is in no experiment of manifest.json"),
        (lambda into: (into / "more").mkdir(), "more is in no experiment"),
        (lambda into: (into / "a-b.md").unlink(), "a-b.md is in manifest.json and not in "),
        (lambda into: (into / "a-b.jsonl.gz").write_bytes(compress(b"{}\n" * 3)), "a-b.jsonl.gz has other lines than"),
        (lambda into: (into / "a-b.jsonl.gz").write_bytes(b"{}\n"), "a-b.jsonl.gz is no whole gzip archive"),
        (lambda into: (into / "README.md").write_text(f"{BEGIN}{END}"), "README.md is not what the manifest gives"),
        (lambda into: (into.parent / "docs" / "evidence.md").write_text("`a-b`"), "a-b-curve.png is shown by no docu"),
        (lambda into: (into.parent / "README.md").write_text("`a-b`"), "a-b: other documents show it"),
    ],
)
def test_what_is_wrong_is_found(project: Path, harm: Any, found: str) -> None:
    into = project / "results"
    keep(played(project), "a-b", into)
    assert not list(problems(into, read_manifest(into)))
    harm(into)
    assert [line for line in problems(into, read_manifest(into)) if found in line]


def test_lines_count_beside_their_hash_and_each_file_has_one_experiment(project: Path) -> None:
    into = project / "results"
    entry = keep(played(project), "a-b", into)
    assert list(damages(into, {"a-b": replace(entry, lines=4)})) == [
        "a-b.jsonl.gz has other lines than manifest.json says; take it from the history, or keep it anew"
    ]
    twice = list(damages(into, {"a-b": entry, "c": entry}))
    assert "a-b.md is in several experiments of manifest.json; leave it in one" in twice
    assert "c has no c.jsonl.gz in manifest.json; keep it anew" in twice


# --- what is made of it ---


def test_pictures_are_shown_by_links_and_the_rest_by_the_name(project: Path) -> None:
    entry = keep(played(project), "a-b", project / "results")
    (project / "docs" / "evidence.md").write_text("`a-b-curve.png` and results/a-b-curve.png, `a-b.md`")
    (project / "README.md").write_text("`a-b` ![](results/a-b-curve.png)")
    (project / "CHANGELOG.md").write_text("`a-b`")
    assert shown(project / "results", {"a-b": entry})["a-b"].files == {
        "a-b-curve.png": ["README.md"],
        "a-b.jsonl.gz": ["README.md"],
        "a-b.md": ["README.md", "docs/evidence.md"],
    }


def test_table_has_a_row_for_each_experiment_and_the_rest_of_the_readme_stays(project: Path) -> None:
    into = project / "results"
    (into / "README.md").write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    entry = keep(played(project, said={"about": "x | y", "commits": ["1", "2"]}), "a-b", into)
    text = (into / "README.md").read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}\n\n| experiment |") and text.endswith(f" |\n\n{END}\n\nbelow\n")
    assert "old" not in text
    row = (
        "| `a-b` | x \\| y | `ssdkd benchmark --out x` | `1`, `2` | SSDKD/Digits-v2 | 9–11 | one, 2 cores | 3 "
        "| [docs/evidence.md](../docs/evidence.md) |"
    )
    assert row in text.splitlines()
    before = text
    write_readme(into, {"a-b": entry})
    assert (into / "README.md").read_text() == before


def test_rows_of_later_environments_come_first_and_what_is_not_known_is_a_dash() -> None:
    unknown = Experiment(None, None, None, None, None, None, None, 1, "", True, {})
    gpu = {"cpu": "two", "cores": 4, "device": "H100"}
    manifest = {
        "a": unknown,
        "b": replace(unknown, environments=["v0"], machines=[gpu, gpu | {"torch_threads": 1}]),
        "c": replace(unknown, environments=["SSDKD/Digits-v2", "SSDKD/Digits-v10"]),
        "d": replace(unknown, environments=["SSDKD/Digits-v9"], unfinished=False),
    }
    rows = table(manifest).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| `c`, **unfinished**",
        "| `d`",
        "| `b`, **unfinished**",
        "| `a`, **unfinished**",
    ]
    assert rows[3] == "| `a`, **unfinished** | – | – | – | – | – | – | 1 | – |"
    assert " | two, 4 cores, H100 | " in rows[2]


def test_neighbouring_numbers_are_put_together() -> None:
    assert ranges([]) == []
    assert ranges([7, 3, 1, 2, 7, 10, 11]) == ["1–3", "7", "10–11"]


def test_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    entry = Experiment("ä | b", None, ["1"], None, ["v0"], [3], [MACHINE], 2, "ab", False, {"x.jsonl.gz": []})
    write_manifest(tmp_path, {"x": entry, "a": entry})
    assert read_manifest(tmp_path) == {"a": entry, "x": entry}
    write_manifest(tmp_path, {})
    assert read_manifest(tmp_path) == {}
    assert read_manifest(tmp_path / "none") == {}
