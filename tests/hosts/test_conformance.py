"""The recorded verdicts on families that span the kinds of attention, and the machinery of the sweep."""

import json
import subprocess

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import discover
from ctxpeft.testing.hosts import history, report, run
from ctxpeft.testing.hosts.family import examine, variants
from ctxpeft.testing.hosts.history import changed_last, changed_since
from ctxpeft.testing.hosts.subject import MAPPINGS, Subject, model_types, perturb

SPAN = {
    "causal/llama": "grouped queries",
    "causal/gpt_neox": "q, k, v interleaved by head, partial rotary",
    "causal/phi3": "q, k, v in one projection",
    "causal/opt": "learned positions, biases",
    "causal/gemma2": "softcap, sliding window, post-norms",
    "causal/gemma3n_text": "layers that share keys and values, several residual streams",
    "causal/gemma4_text": "head sizes by layer",
    "causal/gpt_oss": "sinks, mixture of experts",
    "causal/deepseek_v3": "multi-head latent attention, unequal widths of q and v",
    "causal/deepseek_v32": "sparse attention that builds its mask by backend",
    "causal/llama4_text": "norm behind RoPE, layers without RoPE, experts in one axis",
    "causal/hunyuan_v1_dense": "norm behind RoPE",
    "causal/qwen3_next": "hybrid with linear attention, gated queries",
    "causal/jamba": "hybrid with Mamba",
    "causal/zamba2": "one attention shared by layers",
    "causal/mixtral": "mixture of experts",
    "causal/bloom": "ALiBi outside the interface",
    "causal/gptj": "outside the interface",
    "causal/ctrl": "an FFN that is a container",
    "causal/xlnet": "tokens first",
    "causal/xlm": "layers in parts",
    "causal/mamba": "no attention",
    "seq2seq/t5": "position bias, three stacks",
    "seq2seq/bart": "three stacks",
    "masked/bert": "bidirectional, post-norm",
    "masked/modernbert": "bidirectional, sliding window",
    "masked/mpnet": "position bias outside the interface",
    "masked/albert": "one layer for all",
    "masked/funnel": "pooled tokens",
    "masked/deberta": "disentangled attention outside the interface",
}


CHANGED = sorted({"/".join(family) for family in changed_last()} - SPAN.keys())
"""Those that the last change of the record was about."""


@pytest.mark.parametrize("family", [*SPAN, *CHANGED])
def test_verdicts_are_the_recorded_ones(family):
    mapping, _, model_type = family.partition("/")
    result = examine(mapping, model_type, peft=False)
    assert not report.differences([{**result, "peft": "not measured"}])


def test_the_record_tells_what_changed(tmp_path, monkeypatch):
    """In a repository of its own: the families of the last change, committed or not, HF PEFT's verdicts aside."""
    record = tmp_path / "expected.json"

    def git(*arguments):
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def write(**entries):
        record.write_text(json.dumps({k.replace("__", "/"): v for k, v in entries.items()}))

    monkeypatch.setattr(history, "_record", lambda: record)
    monkeypatch.setattr(history, "expected", lambda: json.loads(record.read_text()))
    git("init", "-q")
    for entries in (
        {"causal__a": {"mixed": "refused"}, "causal__b": {"mixed": "holds"}},
        {"causal__a": {"mixed": "holds"}, "causal__b": {"mixed": "holds", "peft": "works"}},
    ):
        write(**entries)
        git("add", ".")
        git("commit", "-qm", "x")
    assert changed_last() == changed_since("HEAD~1") == {("causal", "a")}
    assert changed_since("HEAD") == set()
    write(causal__a={"mixed": "holds"}, causal__c={"mixed": "holds"})
    assert changed_last() == {("causal", "c")}


def test_every_family_is_recorded_and_none_fails():
    """A family of the installed transformers that nobody looked at, or that is recorded as failing, is an error."""
    known = report.expected()
    every = {f"{mapping}/{kind}" for mapping in MAPPINGS for kind in model_types(mapping)}
    assert every <= known.keys()
    failing = {k: v for k, v in known.items() for name in variants() if v.get(name, "").startswith("fails")}
    assert not failing


def test_a_regression_is_told():
    """A verdict that is not the recorded one is one sentence."""
    result = {
        "mapping": "causal",
        "model_type": "llama",
        "variants": {n: {"state": "holds"} for n in variants()},
    }
    result["variants"]["mixed"] = {
        "state": "fails",
        "checks": {"causal": "an output depends on a later token"},
    }
    (sentence,) = report.differences([{**result, "peft": "works"}])
    assert "causal/llama: mixed: recorded 'holds', found 'fails: causal'" in sentence


def test_a_family_that_cannot_run_costs_only_itself(tmp_path):
    """A worker that dies is told under its family, the next family still runs, and a resumed run reads both."""
    done = tmp_path / "results.jsonl"
    families = [("causal", "no-such-type"), ("causal", "gpt2")]
    results = list(run.sweep(families, jobs=1, done=done))
    assert "error" in results[0]
    assert results[1]["variants"]["prefix-tuning"]["state"] == "holds"
    assert [json.loads(line) for line in done.read_text().splitlines()] == results
    assert list(run.sweep(families, jobs=1, done=done)) == results


class TestStacks:
    """`scope.stack` on an encoder-decoder."""

    def module(self, **scope):
        return {"placement": "inside", "memory": {"kind": "slots", "count": 2}, "scope": scope}

    def attach(self, **scope):
        subject = Subject("seq2seq", "bart")
        model = subject.model()
        return subject, model, ctxpeft.attach(model, {"name": "s", "modules": [self.module(**scope)]}, seed=0)

    @pytest.mark.parametrize(
        ("scope", "prefixes"),
        [
            ({}, {"layers.0", "layers.1", "encoder.0", "encoder.1", "cross.0", "cross.1"}),
            ({"stack": "encoder"}, {"encoder.0", "encoder.1"}),
            ({"stack": "decoder", "layers": [1]}, {"layers.1"}),
            ({"stack": "cross", "layers": {"last": 1}}, {"cross.1"}),
        ],
    )
    def test_layers_count_within_a_stack(self, scope, prefixes):
        _, _, handle = self.attach(**scope)
        assert {".".join(name.split(".")[:2]) for name, _ in handle.named_parameters()} == prefixes

    def test_an_encoder_memory_reaches_the_encoder_alone(self):
        subject, model, handle = self.attach(stack="encoder")
        perturb(handle)
        ids = subject.encoded
        with torch.no_grad():
            changed = model.get_encoder()(ids).last_hidden_state
            base = subject.model().get_encoder()(ids).last_hidden_state
        assert bool(((changed - base).abs().amax((0, 2)) > 0).all())

    def test_a_stack_the_model_lacks(self):
        with pytest.raises(HostError, match=r"scope.stack is 'encoder' and the model has decoder"):
            ctxpeft.attach(
                Subject("causal", "llama").model(), {"name": "s", "modules": [self.module(stack="encoder")]}
            )

    def test_a_site_that_belongs_to_the_layer(self):
        module = {
            "placement": "outside",
            "site": "residual",
            "memory": {"kind": "vector"},
            "scope": {"stack": "cross"},
        }
        with pytest.raises(HostError, match="belongs to the layer as a whole"):
            ctxpeft.attach(Subject("seq2seq", "bart").model(), {"name": "s", "modules": [module]})


class TestWiring:
    """What the watched pass finds."""

    @pytest.mark.parametrize(
        "model_type", ["llama", "gpt_neox", "phi3", "gemma3_text", "deepseek_v3", "qwen3_next"]
    )
    def test_the_model_is_as_it_was(self, model_type):
        subject = Subject("causal", model_type)
        model = subject.model().train()
        before = {name: dict(vars(module)) for name, module in model.named_modules()}
        discover(model)
        model.__dict__.pop("_ctxpeft_wiring")
        for name, module in model.named_modules():
            now = vars(module)
            assert now.keys() == before[name].keys()
            assert now.get("config") is before[name].get("config")
            assert module.training
            assert not module._forward_hooks
            assert not module._forward_pre_hooks

    def test_a_norm_behind_the_rotation_is_no_query_before_it(self):
        (layer, *_) = discover(Subject("causal", "hunyuan_v1_dense").model())
        assert layer.wiring.query is None
        assert layer.wiring.projects()

    def test_a_backend_that_is_asked_for_by_name_is_the_real_one(self):
        """Sparse attention builds its mask for eager and sdpa alone: attached, it must still build it."""
        subject = Subject("causal", "deepseek_v32")
        model = subject.model()
        with torch.no_grad():
            base = subject.logits(model)
            handle = ctxpeft.attach(model, "prefix-tuning-plus", seed=0)
            assert torch.equal(subject.logits(model), base)
            handle.detach()
            dense = subject.model()
            for module in dense.modules():
                if hasattr(module, "index_topk"):
                    module.index_topk = 64
            assert not torch.equal(subject.logits(dense), base)
