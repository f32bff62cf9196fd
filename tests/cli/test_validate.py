"""`ctxpeft validate`: every way a file can be broken is one sentence that names the file, and exit code 2."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxpeft.cli import main
from ctxpeft.errors import MOST
from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.load import load_variant
from tests.cli.running import run

GOOD = """\
name: good
modules:
  - placement: inside
    memory: {kind: slots, count: 4, init: {kind: normal, std: 1.0}, value_init: {kind: zeros}}
"""


def module(text: str) -> str:
    return f"name: x\nmodules:\n  - {text}\n"


def slots(text: str) -> str:
    return module("{placement: inside, memory: {kind: slots, " + text + "}}")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
FFN = "{placement: outside, site: ffn, feature_map: {kind: elu}, memory: {kind: matrix}, "

BROKEN: dict[str, tuple[str | bytes, str]] = {
    "unknown top-level key": (
        GOOD + "moduls: []\n",
        ":5: moduls: unknown key 'moduls'; did you mean 'modules'?",
    ),
    "unknown key in a block": (slots("cuont: 3"), ":3: modules[0].memory.cuont: unknown key 'cuont'"),
    "misspelt kind": (
        module("{placement: inside, memory: {kind: slotz}}"),
        "unknown kind 'slotz'; did you mean 'slots'?",
    ),
    "misspelt placement": (module("{placement: insid, memory: {kind: slots}}"), "did you mean 'inside'?"),
    "negative count": (slots("count: -3"), "memory.count: expected a whole number ≥ 1, found -3"),
    "zero count": (slots("count: 0"), "expected a whole number ≥ 1, found 0"),
    "count as text": (slots("count: '3'"), "expected a whole number, found '3'"),
    "count as a truth value": (slots("count: true"), "expected a whole number, found true"),
    "count with a fraction": (slots("count: 1.5"), "expected a whole number, found 1.5"),
    "count in octal": (slots("count: 010"), "expected a whole number, found '010'"),
    "not a number": (slots("init: {kind: normal, std: .nan}"), "expected a finite number, found nan"),
    "infinity": (slots("init: {kind: normal, std: 1e999}"), "expected a finite number, found inf"),
    "kind as text": (slots("init: zeros"), "expected a mapping such as {kind: zeros}"),
    "gate on the wrong placement": (
        module(
            "{placement: outside, memory: {kind: slots}, gate: {kind: scalar, on: mass, activation: exp}}"
        ),
        "modules[0].gate.on: a gate acts on the mass only inside",
    ),
    "signed map inside": (
        module("{placement: inside, memory: {kind: matrix}, feature_map: {kind: elu}}"),
        "needs a mass: a positive feature map",
    ),
    "query at the FFN": (module(FFN + "query: {source: rotated}}"), "queries exist at site 'head'"),
    "feature map forgotten": (
        module("{placement: outside, memory: {kind: matrix}}"),
        "give feature_map: {kind: ...}",
    ),
    "two bodies": (GOOD + "peft: {peft_type: LORA}\n", "found both"),
    "no body": ("name: x\n", "found neither"),
    "no name": ("modules:\n  - {placement: inside, memory: {kind: slots}}\n", "name: missing"),
    "a number as name": (GOOD.replace("good", "5"), "name: expected text, found 5"),
    "an illegal name": (GOOD.replace("good", "Not good"), "name: expected lower-case letters"),
    "unknown peft_type": (
        "name: x\npeft: {peft_type: LORRA}\n",
        "unknown peft_type 'LORRA'; did you mean 'LORA'?",
    ),
    "a prompt method of PEFT": ("name: x\npeft: {peft_type: PREFIX_TUNING}\n", "cannot be injected in place"),
    "modules as a mapping": ("name: x\nmodules: {placement: inside}\n", "modules: expected a list"),
    "a module as a number": ("name: x\nmodules: [3]\n", "modules[0]: expected a mapping, found 3"),
    "an index twice": (
        module("{placement: inside, memory: {kind: slots}, scope: {layers: [1, 1]}}"),
        "'layers' names an index twice",
    ),
    "an empty file": ("", "empty; expected a variant"),
    "only a comment": ("# nothing\n", "empty; expected a variant"),
    "a list": ("- a\n- b\n", "expected a mapping with 'name' and 'modules', found a list"),
    "a scalar": ("just text\n", "found text"),
    "a number": ("17\n", "found 17"),
    "duplicate keys": (GOOD + "name: again\n", ":5: the key 'name' is given twice"),
    "a billion laughs": (LAUGHS, "aliases expand to more than"),
    "a recursive alias": ("name: x\nmodules: &m [*m]\n", "an alias contains itself"),
    "an unknown alias": ("name: *nobody\n", "not valid YAML"),
    "deep nesting": ("[" * 3000, "levels deep"),
    "a huge file": (b"#" * (1 << 20) + b"\n\n", "too large"),
    "binary": (bytes(range(256)), "not UTF-8 text"),
    "a NUL byte": (b"name: \x00\n", "not text"),
    "UTF-16": (GOOD.encode("utf-16"), "not UTF-8 text"),
    "Latin-1": ("title: caf\u00e9\n".encode("latin-1"), "not UTF-8 text (byte 10)"),
    "a tab": ("name: x\nmodules:\n\t- placement: inside\n", ":3: not valid YAML: a tab"),
    "an unclosed bracket": ("name: [x\n", "not valid YAML"),
    "two documents": (GOOD + "---\n" + GOOD, "another document"),
    "a Python tag": ("name: !!python/object/apply:os.system [ls]\n", "tags such as"),
    "a key that is a list": ("? [a]\n: b\n", "a key must be plain text"),
    "a key that is a number": (GOOD + "1: x\n", "a key must be text"),
    "a control character in a key": (GOOD + '"\\e[31m": x\n', "unknown key '\\x1b[31m'"),
    "a line break in a key": (GOOD + '"a\\nb": x\n', "unknown key 'a\\nb'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = BROKEN[case]
    file = tmp_path / "broken.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = run(capsys, "validate", file)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith(f"error: {file}:")
    assert expected in outcome.err
    assert "Traceback" not in outcome.err


SPACE = """\
modules:
  - templates:
      a: {placement: [inside, outsid], memory: {kind: [slots, matrx], cuont: solve}, scpe: {}}
      b: {placment: outside, memory: {kind: slots}}
"""
SEVERAL: dict[str, tuple[str, list[str]]] = {
    "a variant": (
        "nmae: x\n"
        "title: 3\n"
        "modules:\n"
        "  - {placement: insid, memory: {kind: slotz}}\n"
        "  - placement: outside\n"
        "    memory: {kind: matrix, rnak: 3}\n"
        "    feature_map: {kind: elu}\n"
        "    scope: {layers: {frst: 2}}\n"
        "  - {placement: inside, memory: {kind: matrix}, feature_map: {kind: elu}}\n"
        "training: {learning_rate: high}\n",
        [
            ":1: nmae: unknown key 'nmae'; did you mean 'name'?",
            ":2: title: expected text, found 3",
            ":4: modules[0].memory: unknown kind 'slotz'; did you mean 'slots'? (kinds come from installed packages)",
            ":4: modules[0].placement: 'insid' is not valid here; did you mean 'inside'?",
            ":6: modules[1].memory.rnak: unknown key 'rnak'; did you mean 'rank'?",
            ":8: modules[1].scope.layers.frst: unknown key 'frst'; did you mean 'first'?",
            ":9: modules[2].feature_map.kind: placement 'inside' needs a mass: ...",
            ":10: training.learning_rate: expected a number, found 'high'",
        ],
    ),
    "a space": (
        SPACE + "budget: {parameters: {lik: x}, tolerance: 7}\nsearch: {trails: 3, sampler: tpee}\n",
        [
            ":5: budget.parameters.lik: unknown key 'lik'; did you mean 'like'?",
            ":5: budget.tolerance: expected a number < 1, found 7",
            ":6: search.trails: unknown key 'trails'; did you mean 'trials'?",
            ":6: search.sampler: 'tpee' is not valid here; did you mean 'tpe'?",
            ":3: modules[0].templates.a.placement[1]: 'outsid' is not valid here; did you mean 'outside'?",
            ":3: modules[0].templates.a.memory.cuont: unknown key 'cuont'; did you mean 'count'?",
            ":3: modules[0].templates.a.memory: unknown kind 'matrx'; did you mean 'matrix'? ...",
            ":3: modules[0].templates.a.scpe: unknown key 'scpe'; did you mean 'scope'?",
            ":4: modules[0].templates.b.placment: unknown key 'placment'; did you mean 'placement'?",
        ],
    ),
    "what a space names": (
        "modules:\n  - templates: {a: {placement: outside, memory: {kind: slots}}}\n"
        "anchors: [lora-vq, ia3, nix.yaml]\n",
        [
            ":3: anchors[0]: no shipped variant is called 'lora-vq' and no such file exists; did you mean 'lora-qv'?",
            ":3: anchors[2]: nix.yaml: no such file",
        ],
    ),
    "a task": (
        "train: [a.csv]\ncolumns: {txt: a, lable: b}\nmax_length: 2\nkind: clasification\n",
        [
            ":2: columns.txt: unknown key 'txt'; did you mean 'text'?",
            ":2: columns.lable: unknown key 'lable'; did you mean 'label'?",
            ":3: max_length: expected a whole number ≥ 8, found 2",
            ":4: kind: 'clasification' is not valid here; did you mean 'classification'?",
        ],
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_all_mistakes_of_a_file_are_told_at_once(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each once, in a sentence with its line; neither other alternatives of a union nor the key a typo leaves out."""
    content, sentences = SEVERAL[case]
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    outcome = run(capsys, "validate", file, "--json")
    assert outcome.code == 2
    (result,) = outcome.result["files"]
    told = result["mistakes"]
    assert outcome.err.splitlines() == [f"error: {sentence}" for sentence in told]
    assert result["error"] in told
    assert len(told) == len(sentences)
    for sentence, expected in zip(told, sentences, strict=True):
        begin, dots, _ = f"{file}{expected}".partition("...")
        assert sentence == begin if not dots else sentence.startswith(begin.rstrip())


def test_mistakes_without_end_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody reads a thousand, and each costs a look at all the others."""
    file = tmp_path / "broken.yaml"
    file.write_text(GOOD + "".join(f"key{i}: {i}\n" for i in range(9000)))
    began = time.monotonic()
    outcome = run(capsys, "validate", file)
    assert time.monotonic() - began < 20
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == MOST
    assert outcome.err.splitlines()[-1] == "error: there are more mistakes"


def _directory(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _nothing(path: Path) -> None:
    return None


@pytest.mark.parametrize(
    ("make", "expected"),
    [(_nothing, "no such file"), (_directory, "is a directory"), (_loop, "cannot be read")],
)
def test_what_is_no_file(
    make: Callable[[Path], None], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "thing.yaml"
    make(path)
    outcome = run(capsys, "validate", path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {path}: ")
    assert expected in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    outcome = run(capsys, "validate", path)
    assert outcome.code == 2
    assert "cannot be read (permission denied)" in outcome.err


def test_a_denied_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    outcome = run(capsys, "validate", tmp_path / "secret.yaml")
    assert outcome.code == 2
    assert outcome.err == f"error: {tmp_path / 'secret.yaml'}: cannot be read (permission denied)\n"


def test_a_good_file_has_a_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    outcome = run(capsys, "validate", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{file}: ok  variant  {load_variant(file).fingerprint()}\n"


def test_a_byte_order_mark_is_no_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert run(capsys, "validate", file).code == 0


def test_one_bad_file_among_good_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text("name: x\n")
    outcome = run(capsys, "validate", good, bad, good)
    assert outcome.code == 2
    assert len(outcome.out.splitlines()) == 2
    assert len(outcome.err.splitlines()) == 1


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text("name: x\n")
    outcome = run(capsys, "validate", good, bad, "--json")
    assert outcome.code == 2
    first, second = outcome.result["files"]
    assert first == {
        "file": str(good),
        "kind": "variant",
        "fingerprint": load_variant(good).fingerprint(),
        "advice": [],
        "error": None,
        "mistakes": [],
    }
    assert second["mistakes"] == [second["error"]]
    assert second["fingerprint"] is None
    assert second["error"] in outcome.err


@pytest.mark.parametrize("kind", ["variants", "search"])
def test_everything_that_ships_is_valid(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [shipped_file(kind, name) for name in shipped_names(kind)]
    assert files
    outcome = run(capsys, "validate", *files)
    assert (outcome.code, outcome.err) == (0, "")
    assert len([line for line in outcome.out.splitlines() if not line.startswith("  ")]) == len(files)


def test_the_guide_advises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dead.yaml"
    file.write_text(GOOD.replace("std: 1.0", "std: 0.01"))
    outcome = run(capsys, "validate", file)
    assert outcome.code == 0
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("  ")]
    assert line.startswith(
        "  should: modules[0].memory.init: give slots keys about as large as the model's own"
    )
    assert line.endswith("[keys-of-unit-scale]")
    (found,) = run(capsys, "validate", file, "--json").result["files"]
    assert [a["rule"] for a in found["advice"]] == ["keys-of-unit-scale"]


QUADRATIC = module("{placement: outside, feature_map: {kind: squared_relu}, memory: {kind: matrix}}")


def test_the_guide_is_told_of_model_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules that ask for facts speak by them: few examples, and the shipped model's queries, which are not level."""
    file, data = tmp_path / "quadratic.yaml", tmp_path / "train.csv"
    file.write_text(QUADRATIC)
    data.write_text("text,stars\n" + "".join(f"a good book {i},{i % 2}\n" for i in range(40)))
    alone = run(capsys, "validate", file, "--json")
    assert alone.result["facts"] is None
    model = run(capsys, "validate", file, "--model", "ctxpeft-mini", "--json").result["facts"]
    assert model == {"input_length": None, "examples": None, "gqa": 3, "query_scale": None}
    told = run(capsys, "validate", file, "--data", data, "columns.label=stars", "--json").result
    assert told["facts"]["gqa"] == 3
    assert 30 <= told["facts"]["examples"] <= 40
    low, high = told["facts"]["query_scale"]
    assert low < 0.5 < 1 < high
    ids = {one["rule"] for one in told["files"][0]["advice"]}
    assert ids == {"normalise-before-quadratic", "share-when-data-are-few"}
    plain = run(capsys, "validate", file, "--data", data, "columns.label=stars")
    assert plain.out.startswith("advised for a usual input of ")
    assert f"{told['facts']['examples']} training examples, 3 query heads per kv head" in plain.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["columns.label=stars"],
            "'columns.label=stars' is a setting of data: give --task NAME or --data FILE",
        ),
        (["--task", "docstring-aera"], "did you mean 'docstring-area'?"),
        (["--model", "./nowhere"], "no model folder ./nowhere"),
        (["--task", "docstring-area", "stepz=3"], "unknown setting 'stepz'; did you mean 'steps'?"),
    ],
)
def test_facts_that_cannot_be_had(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    outcome = run(capsys, "validate", file, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert says in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_data_are_no_spec(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / name
    file.write_text("text,label\na,b\n")
    assert main(["validate", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"error: {file} is data: expected a variant, a search space or a task, each a YAML file"
    )
    assert f"'ctxpeft train --variant V --data {file} --dry-run'" in told


@pytest.mark.parametrize(
    ("command", "lister"),
    [
        ("show zzzzz", "ctxpeft ls variants"),
        ("cp zzzzz it.yaml", "ctxpeft ls"),
        ("train --variant zzzzz --task docstring-area --dry-run", "ctxpeft ls variants"),
        ("train --variant prefix-tuning --task zzzzz --dry-run", "ctxpeft ls tasks"),
        ("search zzzzz --dry-run", "ctxpeft ls spaces"),
    ],
)
def test_a_name_that_is_near_nothing(command: str, lister: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert told.endswith(f"; '{lister}' lists what there is\n")
    assert len(told) < 140


def test_no_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, "validate")
    assert outcome.code == 2
    assert "FILE" in outcome.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("budgt: 3\nmodules: []\n", "mine.yaml:1: budgt: unknown key 'budgt'; did you mean 'budget'?"),
        ("anchor: [lora-qv]\nmodules: []\n", "did you mean 'anchors'?"),
        ("name: a\nmodule: []\n", "did you mean 'modules'?"),
    ],
)
def test_a_misspelt_key_of_a_space_is_explained_by_the_keys_of_spaces(
    text: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    done = run(capsys, "validate", path)
    assert done.code == 2
    assert told in done.err
