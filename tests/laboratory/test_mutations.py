from __future__ import annotations

from pathlib import Path

import check_mutations
import pytest
from laboratory.mutations import MUTATIONS, Mutation

from ssdkd_env.errors import InvalidInputError
from tests.scripts.commands import ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_fits_the_code_of_today(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ROOT / mutation.path).read_text()
    assert text.count(mutation.line) == 1
    compile(text.replace(mutation.line, mutation.instead), mutation.path, "exec")


def test_a_line_is_changed_and_put_back(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("a = 1\nb = 2\n")
    with check_mutations.changed(tmp_path, Mutation("module.py", "b = 2", "b = 3")):
        assert file.read_text() == "a = 1\nb = 3\n"
    assert file.read_text() == "a = 1\nb = 2\n"
    with pytest.raises(InvalidInputError, match="bring the mutation up to date"):
        check_mutations.changed(tmp_path, Mutation("module.py", "c = 2", "c = 3"))


def test_what_is_found_and_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suite of one test, which looks at one of two lines."""
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "code.py").write_text("seen = 1\nunseen = 1\n")
    (project / "tests" / "test_mutations.py").write_text("assert False, 'it knows every mutation, and finds them all'")
    (project / "tests" / "test_code.py").write_text("import code\n\n\ndef test_it():\n    assert code.seen == 1\n")
    (project / "tests" / "conftest.py").write_text(
        "import sys\n\nsys.path.insert(0, '.')\nsys.modules.pop('code', None)\n"
    )
    monkeypatch.setattr(check_mutations, "ROOT", project)
    lines = {
        "seen": Mutation("code.py", "\nunseen = 1", "\nunseen = 2"),
        "found": Mutation("code.py", "seen = 1\nu", "seen = 2\nu"),
    }
    monkeypatch.setattr(check_mutations, "MUTATIONS", lines)
    check_mutations.main(check_mutations.Arguments(out=tmp_path / "out.jsonl", tests="tests"))
    shown = capsys.readouterr().out
    assert "| seen | code.py | **not found** |" in shown
    assert "| found | code.py | tests/test_code.py::test_it |" in shown
    assert "1 of 2 found." in shown
    assert (project / "code.py").read_text() == "seen = 1\nunseen = 1\n"


def test_tests_near_by_come_first_and_all_others_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests" / "agents" / "searching").mkdir(parents=True)
    (tmp_path / "tests" / "envs").mkdir()
    near = {
        "ssdkd_env/envs/episode.py": "tests/envs",
        "ssdkd_env/networks/head.py": None,
        "agents/ssdkd_agents/searching/searchers.py": "tests/agents/searching",
        "agents/ssdkd_agents/policies/storage.py": "tests/agents",
    }
    for path, expected in near.items():
        found = check_mutations.tests_near(tmp_path, Mutation(path, "", ""))
        assert found == (None if expected is None else tmp_path / expected)
    asked: list[list[str]] = []

    def run_tests(copy: Path, words: list[str]) -> tuple[str, float]:
        asked.append(words)
        return "", 1.0

    monkeypatch.setattr(check_mutations, "run_tests", run_tests)
    mutation = Mutation("ssdkd_env/envs/episode.py", "", "")
    assert check_mutations.run_near_tests_first(tmp_path, ["-n", "2"], mutation) == ("", 2.0)
    assert asked == [["-n", "2", str(tmp_path / "tests" / "envs")], ["-n", "2"]]


def test_a_suite_that_fails_anyway_and_unknown_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_mutations, "run_tests", lambda *_: ("tests/test_x.py::test_y", 1.0))
    out = tmp_path / "out.jsonl"
    with pytest.raises(
        InvalidInputError, match=r"the unchanged checkout fails tests/test_x\.py::test_y; mend it first"
    ):
        check_mutations.main(check_mutations.Arguments(out=out))
    with pytest.raises(InvalidInputError, match="--only nothing: there is no such mutation; choose one of: "):
        check_mutations.main(check_mutations.Arguments(out=out, only=("nothing",)))
    assert not out.exists()
