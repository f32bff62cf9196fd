"""`ls`, `show`, `cp`, `schema` and `doctor`."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import transformers

import ctxpeft
from ctxpeft import extras
from ctxpeft.cli.doctor import EXTRAS
from ctxpeft.data import mini_model_path, protocol_names, task_names
from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.blocks import Sign
from ctxpeft.spec.registry import families, kinds
from ctxpeft.spec.schema import variant_schema
from tests.cli.running import run

Capture = pytest.CaptureFixture[str]


def test_ls_variants(capsys: Capture) -> None:
    outcome = run(capsys, "ls", "variants")
    assert outcome.code == 0
    names = [line.split()[0] for line in outcome.out.splitlines()[1:]]
    assert names == shipped_names("variants")
    (plus,) = (line for line in outcome.out.splitlines() if line.startswith("prefix-tuning-plus "))
    for part in ("arXiv:2506.13674", "outside", "o ← o + elu(q)ᵀ M", "yes"):
        assert part in plus


def test_ls_variants_json(capsys: Capture) -> None:
    rows = {row["name"]: row for row in run(capsys, "ls", "variants", "--json").result["variants"]}
    assert list(rows) == shipped_names("variants")
    assert rows["prefix-tuning"]["placement"] == "inside"
    assert rows["prefix-tuning"]["identity_at_init"] is False
    assert rows["lora-qv"]["placement"] == "peft"
    assert rows["lora-qv"]["identity_at_init"] is None


def test_ls_variants_says_what_is_exact(capsys: Capture) -> None:
    rows = run(capsys, "ls", "variants", "--json").result["variants"]
    assert {row["exact"] for row in rows} == {True, False}
    for row in rows:
        assert row["differs"] == ctxpeft.load_variant(row["name"]).differs
        assert row["exact"] == (row["differs"] == "")
        assert "trainable" not in row
    lines = run(capsys, "ls").out.splitlines()
    assert "trainable" not in lines[0].split()
    words = ["exact" if row["exact"] else "approximate" for row in rows]
    assert [line[lines[0].index("fidelity") :].split()[0] for line in lines[1:]] == words


def test_ls_variants_on_a_model(capsys: Capture) -> None:
    """Every count is the one that attaching makes, and the skeleton is loaded once for all of them."""
    from transformers import AutoModelForCausalLM

    rows = run(capsys, "ls", "variants", "--model", "ctxpeft-mini", "--json").result["variants"]
    assert [row["name"] for row in rows] == shipped_names("variants")
    assert all(row["refused"] is None for row in rows)
    counts = {row["name"]: row["trainable"] for row in rows}
    model = AutoModelForCausalLM.from_pretrained(mini_model_path())
    for name in ("prefix-tuning-plus", "prefix-tuning-mlp", "gated-sdpa", "lora-qv"):
        handle = ctxpeft.attach(model, name, seed=0)
        assert counts[name] == handle.num_parameters() > 0
        handle.detach()
    lines = run(capsys, "ls", "variants", "-m", "ctxpeft-mini").out.splitlines()
    column = lines[0].index("trainable")
    printed = [line[column:].split()[0] for line in lines[1:]]
    assert printed == [f"{count:,}" for count in counts.values()]


def test_ls_variants_that_a_model_cannot_host(tmp_path: Path, capsys: Capture) -> None:
    """GPT-2 has no q_proj: a dash, and the reason once below the table."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 61}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}), encoding="utf-8")
    outcome = run(capsys, "ls", "variants", "--model", tmp_path, "--json")
    rows = {row["name"]: row for row in outcome.result["variants"]}
    assert outcome.code == 0
    assert rows["prefix-tuning-plus"]["trainable"] == 2 * 4 * 8 * 8
    assert rows["lora-qv"]["trainable"] is None
    assert "PEFT cannot inject it here" in rows["lora-qv"]["refused"]
    lines = run(capsys, "ls", "variants", "--model", tmp_path).out.splitlines()
    (line,) = (line for line in lines if line.startswith("lora-qv "))
    mark = re.search(r"  - (\[\d\])  ", line)
    assert mark is not None
    (note,) = (line for line in lines if line.startswith(mark[1]))
    assert "lora-qv: PEFT cannot inject it here" in note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["blocks", "--model", "ctxpeft-mini"], "it does not go with 'blocks'\n"),
        (["variants", "--model", "nowhere-at-all"], "model 'nowhere-at-all' cannot be loaded"),
    ],
)
def test_ls_on_a_wrong_model(arguments: list[str], message: str, capsys: Capture) -> None:
    outcome = run(capsys, "ls", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_ls_blocks(capsys: Capture) -> None:
    rows = run(capsys, "ls", "blocks", "--json").result["blocks"]
    listed = {(row["family"], row["kind"]) for row in rows}
    assert listed == {(family, kind) for family in families() for kind in kinds(family)}
    assert all(row["sign"] in get_args(Sign) for row in rows if row["family"] == "feature_map")
    assert run(capsys, "ls", "blocks").out.splitlines()[0] == families()[0]


def test_ls_spaces_and_tasks(capsys: Capture) -> None:
    spaces = run(capsys, "ls", "spaces", "--json").result["spaces"]
    assert [row["name"] for row in spaces] == shipped_names("search")
    tasks = run(capsys, "ls", "tasks", "--json").result["tasks"]
    assert [row["name"] for row in tasks] == [*task_names(), *protocol_names()]
    assert {row["data"] for row in tasks} > {"ships with ctxpeft", "hub: CogComp/trec"}
    assert run(capsys, "ls", "tasks").out.splitlines()[0].split() == ["name", "title", "kind", "data"]


def test_ls_of_something_else(capsys: Capture) -> None:
    outcome = run(capsys, "ls", "variant")
    assert outcome.code == 2
    assert outcome.err == "error: ls: 'variant' is not a list; did you mean 'variants'?\n"


def test_show(capsys: Capture) -> None:
    outcome = run(capsys, "show", "prefix-tuning-plus")
    assert outcome.code == 0
    assert "    o ← o + elu(q)ᵀ M\n" in outcome.out
    assert outcome.out.endswith(ctxpeft.load_variant("prefix-tuning-plus").to_yaml())


def test_show_a_file_as_json(tmp_path: Path, capsys: Capture) -> None:
    variant = ctxpeft.load_variant("llama-adapter")
    variant.to_yaml(tmp_path / "mine.yaml")
    result = run(capsys, "show", tmp_path / "mine.yaml", "--json").result
    assert result["fingerprint"] == variant.fingerprint()
    assert ctxpeft.load_variant(result["variant"]) == variant
    assert {"block": "parameterization.frozen_projection"}.items() <= result["blocks"][1].items()


def test_show_tells_the_rate_to_tune_from(tmp_path: Path, capsys: Capture) -> None:
    assert "learning rate     0.1 to tune from\n" in run(capsys, "show", "prefix-tuning").out
    matrix = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}
    apart = {**matrix, "learning_rate_ratio": 30}
    ctxpeft.load_variant({"name": "two", "modules": [matrix, apart]}).to_yaml(tmp_path / "two.yaml")
    outcome = run(capsys, "show", tmp_path / "two.yaml")
    assert "learning rate     0.0001 to tune from, modules[1] at 30 times it\n" in outcome.out
    assert run(capsys, "show", "prefix-tuning", "--json").result["learning_rate"] == 0.1


def test_show_a_map_made_of_a_map(tmp_path: Path, capsys: Capture) -> None:
    module = {
        "placement": "outside",
        "feature_map": {"kind": "film", "base": {"kind": "favor_plus", "width": 8}},
        "memory": {"kind": "matrix"},
    }
    variant = ctxpeft.load_variant({"name": "film", "modules": [module]})
    variant.to_yaml(tmp_path / "film.yaml")
    outcome = run(capsys, "show", tmp_path / "film.yaml")
    assert "    o ← o + (γ ⊙ favor_plus(q))ᵀ M\n" in outcome.out
    blocks = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("feature_map.")]
    assert blocks == ["feature_map.film", "feature_map.favor_plus"]
    assert outcome.out.endswith(variant.to_yaml())


def test_show_counts_on_a_model(shared: Path, capsys: Capture) -> None:
    """The counts that the design gives for stories3M."""
    model = shared / "models" / "stories3M"
    for name, expected in (("prefix-tuning-plus", 36_864), ("lora-qv", 30_720)):
        counted = run(capsys, "show", name, "--model", model, "--json").result["model"]
        assert counted["trainable"] == expected
        assert counted["parameters"] == 3_148_224
    assert "36,864 (1.17%)" in run(capsys, "show", "prefix-tuning-plus", "--model", model).out


def test_show_what_it_costs(capsys: Capture) -> None:
    """On the model that ships: 6 layers of 6 heads of 32, two statistics of 32 x 32 products each."""
    cost = run(capsys, "show", "prefix-tuning-plus", "--model", "ctxpeft-mini", "--json").result["model"][
        "cost"
    ]
    products = 2 * 6 * 6 * 32 * 32
    assert cost["per_token"] == {"forward": products, "training": 3 * products, "decode": products}
    assert cost["cache"] == 0
    lines = run(capsys, "show", "prefix-tuning-plus", "--model", "ctxpeft-mini").out.splitlines()
    assert any(line.split()[:2] == ["decode", f"+{products:,}"] for line in lines)


def test_show_nothing(capsys: Capture) -> None:
    outcome = run(capsys, "show", "prefix-tunig")
    assert outcome.code == 2
    assert outcome.err.endswith("did you mean 'prefix-tuning'?\n")


def test_show_on_no_model(tmp_path: Path, capsys: Capture) -> None:
    outcome = run(capsys, "show", "prefix-tuning", "--model", tmp_path)
    assert outcome.code == 2
    assert (
        outcome.err == f"error: {tmp_path} is a folder without config.json: expected a transformers model\n"
    )
    missing = run(capsys, "show", "prefix-tuning", "--model", tmp_path / "modell")
    assert missing.err.startswith(f"error: no model folder {tmp_path / 'modell'}")


def test_cp(tmp_path: Path, capsys: Capture) -> None:
    """The file is the shipped one under its own name; its first line, which names the schema, is another."""
    source = shipped_file("variants", "prefix-tuning-plus")
    assert source is not None
    head, body = source.read_text(encoding="utf-8").split("\n", 1)
    assert head == "# yaml-language-server: $schema=../docs/schema/variant.json"
    target, schema = tmp_path / "mine.yaml", tmp_path / "variant.schema.json"
    done = run(capsys, "cp", "prefix-tuning-plus", target)
    assert (done.code, str(schema) in done.err) == (0, True)
    copied = f"# yaml-language-server: $schema=variant.schema.json\n{body}".replace(
        "name: prefix-tuning-plus", "name: mine"
    )
    assert target.read_text(encoding="utf-8") == copied
    assert json.loads(schema.read_text(encoding="utf-8")) == json.loads(run(capsys, "schema").out)
    again = run(capsys, "cp", "prefix-tuning", target)
    assert again.code == 2
    assert again.err.startswith(f"error: {target}: exists already")
    assert target.read_text(encoding="utf-8") == copied
    assert sorted(tmp_path.iterdir()) == [target, schema]


def test_cp_keeps_a_foreign_schema_and_writes_none_that_is_not_wanted(
    tmp_path: Path, capsys: Capture
) -> None:
    foreign = tmp_path / "variant.schema.json"
    foreign.write_text('{"$comment": "mine"}')
    assert run(capsys, "cp", "ia3", tmp_path / "a.yaml").code == 0
    assert foreign.read_text() == '{"$comment": "mine"}'
    target = tmp_path / "folder" / "b.yaml"
    target.parent.mkdir()
    assert run(capsys, "cp", "gates", target, "--no-schema").code == 0
    assert list(target.parent.iterdir()) == [target]
    assert "yaml-language-server" not in target.read_text(encoding="utf-8")
    assert run(capsys, "validate", target).code == 0


def test_cp_into_a_folder(tmp_path: Path, capsys: Capture) -> None:
    result = run(capsys, "cp", "ia3", tmp_path, "--json").result
    schema = tmp_path / "variant.schema.json"
    assert result == {"name": "ia3", "file": str(tmp_path / "ia3.yaml"), "schema": str(schema)}
    assert schema.is_file()
    assert (tmp_path / "ia3.yaml").is_file()


def test_cp_does_not_follow_a_dangling_link(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere.yaml")
    assert run(capsys, "cp", "ia3", tmp_path / "link.yaml").code == 2
    assert not (tmp_path / "nowhere.yaml").exists()


def test_cp_nothing(tmp_path: Path, capsys: Capture) -> None:
    outcome = run(capsys, "cp", "ia4", tmp_path / "x.yaml")
    assert outcome.err == "error: nothing that ships is called 'ia4'; did you mean 'ia3'?\n"
    assert outcome.code == 2


def test_schema(capsys: Capture) -> None:
    printed = json.loads(run(capsys, "schema").out)
    assert printed == {**variant_schema(), "$comment": "written by: ctxpeft schema variant"}
    assert run(capsys, "schema", "variant", "--json").result == printed
    assert "modules" in json.loads(run(capsys, "schema", "space").out)["properties"]
    assert run(capsys, "schema", "spaces").err.endswith("did you mean 'space'?\n")


def test_doctor(capsys: Capture) -> None:
    result = run(capsys, "doctor", "--json").result
    assert result["versions"]["ctxpeft"] == ctxpeft.__version__
    assert result["machine"]["threads"] == 1
    assert result["blocks"]["counts"]["memory"] == len(kinds("memory"))
    assert result["problems"] == []
    assert all(result["versions"].values())
    missing = [name for name, found in result["extras"].items() if found is None]
    outcome = run(capsys, "doctor")
    assert outcome.out.count("not installed (extra ctxpeft[") == len(missing)
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "all well")


def test_doctor_knows_every_extra(repository: Path, capsys: Capture) -> None:
    """Its packages are those of pyproject.toml, under the names they are installed by."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {n: texts for n, texts in project["optional-dependencies"].items() if n not in ("dev", "docs")}
    packages = {(re.split("[><=]", text)[0], name) for name, texts in extras.items() for text in texts}
    assert set(EXTRAS.items()) == packages - {("datasets", "trl")}


@pytest.mark.parametrize(
    ("args", "package", "extra"),
    [
        (["compare", "-v", "ia3,none", "-t", "docstring-area", "--dry-run"], "matplotlib", "plots"),
        (["diagnose", "-a", "prefix-tuning", "--out", "x"], "matplotlib", "plots"),
        (["report", "x"], "matplotlib", "plots"),
        (["train", "-v", "lora-qv", "-t", "docstring-area", "--dry-run", "limit=9"], "peft", "peft"),
        (["report", "--storage", "postgresql://nobody@localhost/x", "--out", "x"], "psycopg2", "postgres"),
        (["train", "-v", "ia3", "-t", "trec", "--dry-run"], "datasets", "data"),
        (["eval", "-t", "e2e", "--data", "x.jsonl"], "sacrebleu", "text"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    args: list[str],
    package: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """A package that is not installed: neither found nor importable."""
    assert transformers.Trainer  # its module imports peft where a distribution of it is installed
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "a", "completion": "b"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setitem(sys.modules, package, None)
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else found(name))
    done = run(capsys, *args)
    assert done.code == 2
    assert f"pip install 'ctxpeft[{extra}]'" in done.err
    assert done.err.count("\n") == 1


def test_doctor_on_a_model(shared: Path, capsys: Capture) -> None:
    outcome = run(capsys, "doctor", "--model", shared / "models" / "stories260K")
    assert outcome.code == 0
    assert "supported: 5 layers, 8 query heads, 4 kv heads of width 8" in outcome.out


def test_doctor_on_a_model_without_attention(tmp_path: Path, capsys: Capture) -> None:
    config = {
        "model_type": "mamba",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "vocab_size": 8,
        "state_size": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    outcome = run(capsys, "doctor", "--model", tmp_path)
    assert outcome.code == 1
    assert "problem: ctxpeft finds no attention it can serve in this model" in outcome.out


def test_doctor_names_a_block_that_does_not_load(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from importlib.metadata import EntryPoint

    from ctxpeft.spec import registry

    broken = EntryPoint("gate.foreign", "no_such_package.gates:Foreign", registry.GROUP)
    known = registry.entry_points(group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*known, broken])
    registry._entries.cache_clear()
    registry.kinds.cache_clear()
    try:
        outcome = run(capsys, "doctor")
    finally:
        monkeypatch.undo()
        registry._entries.cache_clear()
        registry.kinds.cache_clear()
    assert outcome.code == 1
    assert (
        "problem: the block 'gate.foreign' (no_such_package.gates:Foreign) cannot be imported" in outcome.out
    )
