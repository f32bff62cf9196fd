"""HF PEFT's prefix tuning on the same models, measured beside ours."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.testing.hosts.checks import can_generate
from ctxpeft.testing.hosts.subject import PADDING, Subject, tokens

TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "masked": "FEATURE_EXTRACTION"}
SLOTS = 4


def measure(subject: Subject) -> str:
    """`works`; `reaches k of T positions`; or the stage that fails and its exception, such as `forward: ValueError`."""
    from peft import PrefixTuningConfig, get_peft_model

    stage = "attach"
    try:
        model: Any = subject.model()
        base = subject.logits(model).detach()
        config = PrefixTuningConfig(task_type=TASKS[subject.mapping], num_virtual_tokens=SLOTS)
        model = get_peft_model(model, config)
        stage = "forward"
        out = subject.logits(model)
        stage = "gradients"
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
        torch.autograd.backward((out.float() * weights).sum())
        trained = [p for p in model.parameters() if p.requires_grad]
        if not all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained):
            return "no gradient"
        reached = int(((out[:, -base.shape[1] :] - base).abs().amax((0, 2)) > 1e-6 * base.abs().max()).sum())
        stage = "generate"
        if can_generate(subject, subject.model()):
            ids = tokens(2, 6, seed=3)
            ids[0, :2] = PADDING
            mask = (ids != PADDING).long()
            model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False)
    except Exception as error:
        return f"{stage}: {type(error).__name__}"
    return "works" if reached == base.shape[1] else f"reaches {reached} of {base.shape[1]} positions"
