"""Each instrument measures what it says, against an independent way to the same number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ctxpeft
from ctxpeft.analysis import diagnose
from ctxpeft.analysis.diagnose._texts import windows
from ctxpeft.errors import DataError
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.cli.running import run

IDS = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(1))
SLOTS = {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 1.0}}


class Letters:
    """Tokens as letters."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(64 + i) for i in ids)


def attached(model: nn.Module, module: dict[str, Any], name: str = "default", std: float = 0.3) -> Any:
    handle = ctxpeft.attach(model, {"name": name, "modules": [module]}, name=name, seed=0)
    if std:
        perturb(handle, std=std)
    return handle


def column(found: diagnose.Diagnosis, name: str) -> list[Any]:
    return [row[found.columns.index(name)] for row in found.rows]


def test_weight_is_what_the_content_loses() -> None:
    """rho = 1 - the sum of the content's attention weights, which the eager backend returns."""
    model = tiny_model()
    handle = attached(model, {"placement": "inside", "memory": SLOTS})
    found = diagnose.dilution({"a": handle}, IDS, [1, 5, 12])
    model.set_attn_implementation("eager")
    weights = model(IDS, output_attentions=True).attentions
    for layer, n, weight in zip(
        column(found, "layer"), column(found, "n"), column(found, "weight"), strict=True
    ):
        left = weights[layer][:, :, n - 1].sum(-1)
        assert weight == pytest.approx(float((1 - left).mean()), abs=1e-5)


def test_an_outside_memory_has_a_share_and_no_weight() -> None:
    model = tiny_model()
    handle = attached(model, {"placement": "outside", "memory": {"kind": "vector"}})
    found = diagnose.dilution({"a": handle}, IDS, [2])
    assert set(column(found, "weight")) == {None}
    assert all(0 < share < 1 for share in column(found, "share"))


def test_a_length_beyond_the_windows_is_refused() -> None:
    handle = attached(tiny_model(), {"placement": "inside", "memory": SLOTS})
    with pytest.raises(DataError, match="length 40 is more than the 12 tokens"):
        diagnose.dilution({"a": handle}, IDS, [40])


def test_a_constant_bias_has_no_spectrum_and_a_rank_one_matrix_one_direction() -> None:
    model = tiny_model()
    flat = attached(model, {"placement": "outside", "memory": {"kind": "vector"}}, "flat")
    thin = attached(
        model,
        {
            "placement": "outside",
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix", "form": "low_rank", "rank": 1},
            "scope": {"heads": [1]},
        },
        "thin",
    )
    found = diagnose.spectrum({"flat": flat, "thin": thin}, IDS)
    rows = dict(
        zip(
            column(found, "adapter"),
            zip(column(found, "effective rank"), column(found, "top eigenvalue"), strict=True),
            strict=True,
        )
    )
    assert rows["flat"][1] < 1e-10
    assert rows["thin"][0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_a_memory_shifts_attention_only_above_its_layer(placement: str) -> None:
    """arXiv:2310.19698: the relative weights over the content stay in the layer itself; deeper layers change."""
    model = tiny_model()
    module: dict[str, Any] = {"placement": placement, "memory": SLOTS}
    handle = attached(model, module)
    before = model.config._attn_implementation
    found = diagnose.attention_shift({"a": handle}, IDS)
    by_layer: dict[int, list[float]] = {}
    for layer, shift in zip(column(found, "layer"), column(found, "shift"), strict=True):
        by_layer.setdefault(layer, []).append(shift)
    assert max(by_layer[0]) < 1e-5
    assert min(by_layer[1]) > 1e-3
    assert model.config._attn_implementation == before


def test_what_starts_as_the_base_shifts_nothing() -> None:
    handle = attached(
        tiny_model(),
        {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}},
        std=0,
    )
    assert max(column(diagnose.attention_shift({"a": handle}, IDS), "shift")) == 0


def test_gates_are_read() -> None:
    model = tiny_model()
    handle = attached(
        model,
        {
            "placement": "outside",
            "memory": {"kind": "vector"},
            "gate": {"kind": "scalar", "activation": "tanh", "init": 0.5},
        },
        std=0,
    )
    found = diagnose.gates({"a": handle}, IDS)
    assert column(found, "mean") == pytest.approx([float(torch.tanh(torch.tensor(0.5)))] * 8)
    assert set(column(found, "deviation")) == {0.0}


def test_reads_are_the_largest_shares() -> None:
    """A memory that acts on one token in five is read by none but those."""
    model = tiny_model()
    module = {
        "placement": "outside",
        "memory": {"kind": "vector", "init": {"kind": "normal", "std": 1.0}},
        "scope": {"tokens": "generated"},
    }
    handle = attached(model, module)
    marked = torch.zeros(3, 12, dtype=torch.bool)
    marked[1, 7] = marked[2, 3] = True
    with ctxpeft.segments(model, marked):
        found = diagnose.reads({"a": handle}, IDS, Letters(), top=3)
    tokens = column(found, "token")
    assert set(tokens[:2]) == {
        repr(Letters().decode([int(IDS[1, 7])])),
        repr(Letters().decode([int(IDS[2, 3])])),
    }
    assert column(found, "share")[2] == 0
    assert column(found, "share") == sorted(column(found, "share"), reverse=True)


def test_a_slot_that_says_a_word_is_read_as_that_word() -> None:
    """A value whose way through W_o is the unembedding of token 7 is nearest to token 7."""
    model = tiny_model()
    handle = attached(model, {"placement": "inside", "memory": {**SLOTS, "per": "query_head"}}, std=0)
    weight: Tensor = model.model.layers[0].self_attn.o_proj.weight.double()
    wanted = model.get_output_embeddings().weight[7].double()
    value = torch.linalg.lstsq(weight, wanted[:, None]).solution[:, 0].float()
    parameters = dict(handle.named_parameters())
    parameters["layers.0.0.memory.slots.value"].data[:, 1] = value.view(4, 8)
    found = diagnose.slots({"a": handle}, Letters(), top=2)
    line = next(row for row in found.rows if row[2:4] == (0, 1))
    assert line[-1].split(" ")[0] == repr(chr(64 + 7))


def test_several_adapters_do_not_disturb_each_other() -> None:
    model = tiny_model()
    first = attached(model, {"placement": "inside", "memory": SLOTS}, "first")
    alone = diagnose.dilution({"first": first}, IDS, [4]).rows
    second = attached(model, {"placement": "inside", "memory": SLOTS}, "second")
    assert diagnose.dilution({"first": first, "second": second}, IDS, [4]).rows[: len(alone)] == alone


def test_windows_need_enough_text() -> None:
    class Words:
        def __call__(self, text: str, verbose: bool = True) -> dict[str, list[int]]:
            assert not verbose, "transformers would warn that the text is longer than the model's context"
            return {"input_ids": [len(word) for word in text.split()]}

    assert windows(Words(), ["a bb ccc", "dddd"], 2, 5).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="hold 1 tokens and one window takes 2"):
        windows(Words(), ["a"], 2, 5)


def test_the_command_writes_tables_data_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The function returns the sum of two numbers. " * 40)
    out = tmp_path / "out"
    arguments = ["--text", text, "--windows", 2, "--lengths", "1,8", "--out", out, "--json"]
    outcome = run(capsys, "diagnose", "-a", "prefix-tuning", "-a", "llama-adapter", *arguments)
    assert outcome.code == 0, outcome.err
    names = [d["instrument"] for d in outcome.result["diagnoses"]]
    assert names == list(diagnose.INSTRUMENTS)
    for name in names:
        assert (out / f"{name}.md").is_file()
        assert (out / f"{name}.json").is_file()
        assert (out / f"{name}.png").is_file() == (name != "slots")


BAD = [
    (["--what", "spectra"], "no instrument 'spectra'; did you mean 'spectrum'?"),
    (["--lengths", "1,x"], "expected whole numbers above zero"),
    (["--lengths", "4000"], "4000 is more than the 512 positions"),
    (["--text", "nowhere.txt"], "nowhere.txt: cannot be read as text (no such file or directory)"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_mistakes_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(capsys, "diagnose", "-a", "prefix-tuning", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_peft_tuner_has_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, "diagnose", "-a", "lora-qv", "--lengths", "4", "--windows", "1")
    assert outcome.code == 2
    assert "lora-qv wraps an HF PEFT tuner" in outcome.err
