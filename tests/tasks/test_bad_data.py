"""A bad file is one sentence, exit code 2, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctxpeft.cli import main
from ctxpeft.tasks._files import read_rows

GOOD = "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(8))
CASES: dict[str, tuple[str, bytes, str]] = {
    # name: (file name, content, what the sentence must contain)
    "empty": ("d.csv", b"", "is empty"),
    "header only": ("d.csv", b"text,label\n", "holds no rows"),
    "misnamed column": ("d.csv", b"texxt,label\nx,a\ny,b\n", "did you mean 'texxt'"),
    "latin-1": ("d.csv", "text,label\ncafé,a\n".encode("latin-1"), "line 2: byte 0xe9 at column 4"),
    "utf-16": ("d.csv", GOOD.encode("utf-16"), "UTF-16: expected UTF-8"),
    "utf-16 without a mark": ("d.csv", GOOD.encode("utf-16-le"), "line 1: a NUL byte"),
    "utf-32": ("d.csv", GOOD.encode("utf-32"), "UTF-32: expected UTF-8"),
    "windows-1252": ("d.csv", "text,label\n“so”,a\n".encode("cp1252"), "line 2: byte 0x93 at column 1"),
    "a truncated character": ("d.csv", "text,label\ncafé".encode()[:-1], "line 2: byte 0xc3"),
    "binary": ("d.csv", b"text,label\n\x00\x01,a\n", "line 2: a NUL byte"),
    "ragged": ("d.csv", b"text,label\nx,a\none, two,b\n", "line 3: 3 fields"),
    "open quote": ("d.csv", b'text,label\n"never closed,a\nx,b\n', "never closed"),
    "two columns alike": ("d.csv", b"text,text\nx,a\n", "named twice"),
    "nameless column": ("d.csv", b"text,\nx,a\n", "column 2 has no name"),
    "empty label": ("d.csv", b"text,label\nx,a\ny,\n", "line 3: 'label' is empty"),
    "empty text": ("d.csv", b"text,label\nx,a\n  ,b\n", "line 3: 'text' is empty"),
    "one class": ("d.csv", b"text,label\nx,a\ny,a\n", "every row has the label 'a'"),
    "a label for every row": (
        "d.csv",
        b"text,label\n" + b"".join(f"t{i},l{i}\n".encode() for i in range(30)),
        "30 different labels in 30 rows",
    ),
    "mixed labels": (
        "d.jsonl",
        b'{"text":"x","label":"a"}\n{"text":"y","label":3}\n',
        "line 2: the label 3 is a number",
    ),
    "null label": (
        "d.jsonl",
        b'{"text":"x","label":"a"}\n{"text":"y","label":null}\n',
        "line 2: 'label' is empty",
    ),
    "half a character": (
        "d.jsonl",
        b'{"text":"x","label":"a"}\n{"text":"\\ud83d","label":"b"}\n',
        "line 2: half a character (\\ud83d): expected Unicode text",
    ),
    "missing key": ("d.jsonl", b'{"text":"x","label":"a"}\n{"text":"y","labl":"b"}\n', "did you mean 'labl'"),
    "list as text": ("d.jsonl", b'{"text":["x"],"label":"a"}\n', "line 1: 'text' is a list"),
    "not a number": ("d.jsonl", b'{"text":NaN,"label":"a"}\n', "line 1: 'text' is nan"),
    "broken json line": ("d.jsonl", b'{"text":"x","label":"a"}\n{"text": \n', "line 2: not JSON"),
    "a line that is a list": ("d.jsonl", b'["x","a"]\n', "line 1: expected an object"),
    "broken json": ("d.json", b'[{"text":"x",\n"label":}]', "line 2: not JSON"),
    "json of numbers": ("d.json", b"[1, 2]", "item 1: expected an object"),
    "deep json": ("d.json", b"[" * 200_000, "not JSON"),
    "a field without end": (
        "d.csv",
        b'text,label\n"' + (b"x" * 1023 + b"\n") * 17_000,
        "is a quote never closed?",
    ),
    "a line without end": (
        "d.csv",
        b"text,label\n" + b"x" * ((1 << 26) + 1),
        "line 2 is longer than 67,108,864 bytes",
    ),
    "no labels at all": ("d.csv", b"text,label\nx,\ny,\n", "line 2: 'label' is empty"),
    "unknown suffix": ("d.parquet", b"PAR1", "unknown format '.parquet'"),
    "no column at all": ("d.csv", b"a,b\n1,2\n", "found the columns a, b"),
}


def _assert_one_sentence(code: int, captured: pytest.CaptureFixture[str], expected: str) -> None:
    out, err = captured.readouterr()
    lines = err.strip().splitlines()
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("name", CASES)
def test_bad_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, content, expected = CASES[name]
    path = tmp_path / file
    path.write_bytes(content)
    out = tmp_path / "out"
    code = main(["train", "--variant", "ia3", "--data", str(path), "--out", str(out)])
    if "RecursionError" not in expected and name == "deep json":
        assert code == 2
        assert not out.exists()
        return
    _assert_one_sentence(code, capsys, expected)
    assert not out.exists()


FLAGS: dict[str, tuple[list[str], str]] = {
    "no data": ([], "no data: give --task"),
    "missing file among others": (
        ["--data", "zz.csv"],
        "zz.csv does not exist; valid names: other.csv, train.csv",
    ),
    "missing file": (["--data", "trian.csv"], "trian.csv does not exist; did you mean 'train.csv'"),
    "a folder": (["--data", "folder"], "is a folder"),
    "unknown label column": (
        ["--data", "train.csv", "columns.label=lable"],
        "no column 'lable'; did you mean 'label'",
    ),
    "unknown setting": (["--data", "train.csv", "stpes=3"], "unknown setting 'stpes'; did you mean 'steps'"),
    "unknown task setting": (["--data", "train.csv", "task.limt=3"], "did you mean 'task.limit'"),
    "unknown columns key": (["--data", "train.csv", "columns.lable=x"], "did you mean 'label'"),
    "not a setting": (
        ["--data", "train.csv", "--test", "train.csv", "--fresh", "steps"],
        "'steps' is not a setting",
    ),
    "wrong type": (["--data", "train.csv", "steps=many"], "steps"),
    "out of range": (["--data", "train.csv", "learning_rate=-1"], "learning_rate"),
    "template without a column": (["--data", "train.csv", "template=Answer:"], "names no column"),
    "template of another column": (
        ["--data", "train.csv", "template={tekst} Answer:"],
        "did you mean 'text'",
    ),
    "template that leaks": (["--data", "train.csv", "template={label} {text}"], "shows the answer"),
    "unknown label word": (["--data", "train.csv", "label_words={c: x}"], "no label 'c'"),
    "same label words": (["--data", "train.csv", "label_words={a: x, b: x}"], "both written 'x'"),
    "test label unseen": (
        ["--data", "train.csv", "--test", "other.csv"],
        "line 2: the label 'aa' of the test data",
    ),
    "everything leaks": (["--data", "train.csv", "--test", "train.csv"], "no training example is left"),
    "unknown task": (["--task", "docstring-aera"], "did you mean 'docstring-area'"),
    "a protocol on other columns": (
        ["--task", "webnlg", "--data", "train.csv"],
        "train.csv: no column 'prompt' among text, label",
    ),
    "unknown variant": (
        ["--data", "train.csv", "--variant", "prefix-tunning"],
        "did you mean 'prefix-tuning'",
    ),
    "unknown model": (["--data", "train.csv", "--model", "./no-such-model"], "no model folder"),
    "a model that is none": (["--data", "train.csv", "--model", "folder"], "without config.json"),
    "nearly the shipped model": (
        ["--data", "train.csv", "--model", "ctxpeft-mimi"],
        "did you mean 'ctxpeft-mini'",
    ),
    "unknown option": (["--data", "train.csv", "--stepps", "3"], "--stepps"),
    "unknown dtype": (["--data", "train.csv", "dtype=float31"], "unknown dtype 'float31'"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_bad_flags(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, expected = FLAGS[name]
    (tmp_path / "train.csv").write_text(GOOD, encoding="utf-8")
    (tmp_path / "other.csv").write_text("text,label\nnew,aa\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    variant = [] if "--variant" in arguments else ["--variant", "ia3"]
    code = main(["train", *variant, "--out", "out", *arguments])
    _assert_one_sentence(code, capsys, expected)
    assert not Path("out").exists()


def test_a_json_file_that_would_fill_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hole of two gigabytes: nothing of it is read."""
    path = tmp_path / "d.json"
    path.touch()
    os.truncate(path, 1 << 31)
    code = main(["train", "--variant", "ia3", "--data", str(path), "--out", str(tmp_path / "out")])
    _assert_one_sentence(code, capsys, "JSON is read whole: save it as JSON Lines")


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.csv", tmp_path / "marked.csv"
    plain.write_bytes(GOOD.encode())
    marked.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert [r.values for r in read_rows(plain)] == [r.values for r in read_rows(marked)]
