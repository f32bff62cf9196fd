"""A study as a text file: small, whole, and continued elsewhere as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from ctxpeft.errors import CtxpeftError, SpecError
from ctxpeft.search.archive import archive_of, read_archive, reread
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.located import archive_at
from ctxpeft.search.outcome import Row
from ctxpeft.search.run import Found, search, stored
from ctxpeft.search.samplers import sampler
from ctxpeft.search.space.chooser import TrialChooser
from ctxpeft.search.space.walk import walk
from ctxpeft.search.storage import load_study, open_storage, open_study


def strip(row: Row) -> Row:
    """A row without its clock."""
    return replace(row, seconds=0.0)


def test_is_small_and_whole(found: Found) -> None:
    path = found.out / "study.json"
    assert path.stat().st_size < 4096 * len(found.rows) + 16384
    archive = read_archive(path)
    assert archive.rows == found.rows
    assert archive.finals == found.finals
    assert archive.about == found.about
    assert archive.text() == path.read_text(encoding="utf-8")


def test_is_one_line_a_trial(found: Found) -> None:
    lines = (found.out / "study.json").read_text(encoding="utf-8").splitlines()
    listed = lines[lines.index('"trials": [') + 1 : -2]
    assert [json.loads(line.rstrip(","))["number"] for line in listed] == [r.number for r in found.rows]


def test_the_next_suggestion_is_the_same(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    """Export, delete the database, import, ask: TPE, past its startup, answers as the study itself would."""
    archive = read_archive(found.out / "study.json")
    settings = tiny_job.search.model_copy(update={"startup": 2})
    asked = []
    for name in ("kept", "put-back"):
        out = tmp_path / name
        out.mkdir()
        url = f"sqlite:///{out / 'study.db'}"
        if name == "kept":
            shutil.copy(found.out / "study.db", out / "study.db")
        study = open_study(url, "tiny", archive.described, tiny_job.space.file.anchors, archive)
        study.sampler = sampler(study, tiny_job.space, settings, 0, solve=False)
        answers = []
        for _ in range(3):
            trial = study.ask()
            walk(tiny_job.space.positions, TrialChooser(trial), solve=False, guide=True)
            answers.append((trial.number, trial.params))
        asked.append(answers)
    assert asked[0] == asked[1]


def test_a_study_goes_on_from_its_file(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    more = with_settings(tiny_job.space, {"search": {"trials": 7, "finalists": 0}})
    shutil.copytree(tiny_job.out, tmp_path / "kept")
    kept = search(replace(tiny_job, space=more, out=tmp_path / "kept"))
    job = replace(tiny_job, space=more, out=tmp_path / "elsewhere")
    begun = search(job, begin=read_archive(found.out / "study.json"))
    assert begun.rows[: len(found.rows)] == found.rows
    assert [strip(row) for row in begun.rows] == [strip(row) for row in kept.rows]
    again = search(job, begin=read_archive(found.out / "study.json"))
    assert again.rows == begun.rows, "the same command resumes"


def test_other_trials_are_not_overwritten(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    shutil.copytree(tiny_job.out, tmp_path / "study")
    archive = read_archive(found.out / "study.json")
    with pytest.raises(SpecError, match="holds trials that are not from that file"):
        search(replace(tiny_job, out=tmp_path / "study"), begin=replace(archive, trials=archive.trials[::-1]))
    assert stored(replace(tiny_job, out=tmp_path / "study").url, None, tmp_path).rows == found.rows


def test_what_a_search_cannot_go_on_with_is_refused_before_anything_is_written(
    found: Found, tiny_job: Job, tmp_path: Path
) -> None:
    """So that the corrected command does, in the same folder."""
    archive = read_archive(found.out / "study.json")
    job = replace(tiny_job, out=tmp_path / "study")
    two = with_settings(tiny_job.space, {"search": {"objective": ["loss", "parameters"], "finalists": 0}})
    with pytest.raises(SpecError, match=r"made with search.objective = \"loss\", and is now asked for"):
        search(replace(job, space=two), begin=archive)
    other = with_settings(tiny_job.space, {"training": {"steps": 9}})
    with pytest.raises(
        SpecError, match=r"made with training.steps = 6, and is now asked for 9: --from needs the same"
    ):
        search(replace(job, space=other), begin=archive)
    odd = [replaced_values(trial, [1.0, 2.0]) for trial in archive.trials]
    with pytest.raises(SpecError, match="trials of that file have 2 objectives, and the search has 1"):
        search(job, begin=replace(archive, trials=odd))
    assert list(tmp_path.iterdir()) == [], "not even the folder"
    less = with_settings(tiny_job.space, {"search": {"finalists": 0}})
    assert search(replace(job, space=less), begin=archive).rows == found.rows


def replaced_values(trial: FrozenTrial, values: list[float]) -> FrozenTrial:
    """The trial with other values, if it has any."""
    changed = deepcopy(trial)
    if trial.values:
        changed.values = values
    return changed


def test_a_study_begun_for_another_number_of_objectives_is_refused(tmp_path: Path) -> None:
    """Its process was killed before it wrote what the study is for."""
    url = f"sqlite:///{(tmp_path / 'study.db').as_posix()}"
    optuna.create_study(study_name="s", storage=open_storage(url), directions=["minimize"] * 2)
    with pytest.raises(
        SpecError, match=r"'s' was made with objectives = 2, and is now asked for 1: .*--fresh"
    ):
        open_study(url, "s", {}, [])


def test_a_folder_stands_for_its_database_which_may_be_newer_than_its_file(
    found: Found, tiny_job: Job, tmp_path: Path
) -> None:
    """A search that was killed has written no file since; what it trained then is what `--from` goes on with."""
    assert archive_at(found.out).text() == read_archive(found.out / "study.json").text()
    with pytest.raises(CtxpeftError, match=r"holds no study.db: expected the folder of a search"):
        archive_at(tmp_path)
    older = tmp_path / "older"
    older.mkdir()
    shutil.copy(found.out / "study.db", older)
    data = json.loads((found.out / "study.json").read_text(encoding="utf-8"))
    (older / "study.json").write_text(json.dumps({**data, "trials": data["trials"][:2]}), encoding="utf-8")
    study = load_study(f"sqlite:///{(older / 'study.db').as_posix()}", None)
    study.ask().set_user_attr("owner", "somebody who was killed")
    begins = reread(archive_at(older))
    assert [strip(row) for row in begins.rows[:-1]] == [strip(row) for row in found.rows]
    assert begins.trials[-1].state == TrialState.FAIL, "it is tried again"
    assert "owner" not in begins.trials[-1].user_attrs
    less = with_settings(tiny_job.space, {"search": {"finalists": 0}})
    more = search(replace(tiny_job, space=less, out=tmp_path / "more"), begin=begins)
    assert more.rows[: len(found.rows)] == found.rows
    (older / "study.db").unlink()
    assert len(archive_at(older).trials) == 2


def test_another_space_is_refused(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    other = with_settings(tiny_job.space, {"training": {"steps": 9}})
    job = replace(tiny_job, space=other, out=tmp_path / "study")
    with pytest.raises(SpecError, match=r"was made with training.steps = 6, and is now asked for 9"):
        search(job, begin=read_archive(found.out / "study.json"))


def test_what_ran_or_waited_is_tried_again(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    shutil.copytree(tiny_job.out, tmp_path / "study")
    url = f"sqlite:///{tmp_path / 'study' / 'study.db'}"
    study = load_study(url, "tiny")
    study.enqueue_trial({}, user_attrs={"anchor": "ntk-attention"})
    study.enqueue_trial({}, user_attrs={"anchor": "length-compensated"})
    running = study.ask()
    (tmp_path / "study.json").write_text(archive_of(study).text(), encoding="utf-8")
    archive = read_archive(tmp_path / "study.json")
    assert [t.state for t in archive.trials[-2:]] == [TrialState.FAIL, TrialState.WAITING]
    assert archive.rows[running.number].outcome == "interrupted"
    less = with_settings(tiny_job.space, {"search": {"finalists": 0}})
    rows = search(replace(tiny_job, space=less, out=tmp_path / "new"), begin=archive).rows
    assert sorted(r.anchor for r in rows[len(found.rows) :]) == [
        "length-compensated",
        "ntk-attention",
        "ntk-attention",
    ]
    assert [r.outcome for r in rows].count("interrupted") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no study file"),
        ("{", "cannot be read as a study"),
        ('{"about": {}, "trials": []}', "expected format 'ctxpeft study 1', found None"),
        ('{"format": "ctxpeft study 1"}', "is damaged: KeyError: 'dimensions'"),
        (
            '{"format": "ctxpeft study 1", "dimensions": {}, "trials": [{"number": 0, "state": "DONE"}]}',
            "damaged",
        ),
    ],
)
def test_a_file_that_is_none_is_one_sentence(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(CtxpeftError, match=message) as caught:
        read_archive(path)
    assert "\n" not in str(caught.value)


def test_an_older_study_says_by_its_settings_whether_the_guide_was_on(found: Found, tmp_path: Path) -> None:
    text = (found.out / "study.json").read_text(encoding="utf-8")
    path = tmp_path / "study.json"
    path.write_text(
        text.replace('"guide": true, ', "", 1), encoding="utf-8"
    )  # in `about`, which stands first
    assert '"guide": true' in path.read_text(encoding="utf-8")
    assert read_archive(path).about["guide"] is True
    assert read_archive(path).about["guide"] == read_archive(found.out / "study.json").about["guide"]


def test_an_older_study_says_its_rates_by_its_settings(found: Found, tmp_path: Path) -> None:
    text = (found.out / "study.json").read_text(encoding="utf-8")
    data = json.loads(text)
    told = data["about"].pop("rates")
    data["described"]["space"]["rates"].pop("widen", None)
    (tmp_path / "study.json").write_text(json.dumps(data), encoding="utf-8")
    assert read_archive(tmp_path / "study.json").about["rates"] == {**told, "widen": 0}


def test_a_study_of_the_first_format_is_read_and_not_continued(
    repository: Path, tiny_job: Job, tmp_path: Path
) -> None:
    archive = read_archive(repository / "docs" / "evidence" / "trec" / "study.json")
    assert {row.outcome for row in archive.rows} >= {"completed", "pruned", "infeasible"}
    assert archive.finals is not None
    with pytest.raises(SpecError, match="ctxpeft report reads it, --from does not"):
        search(replace(tiny_job, out=tmp_path / "more"), begin=archive)
