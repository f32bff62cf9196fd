"""What may be compared with a variant and is none: names and what they are."""

from __future__ import annotations

BASELINES: dict[str, str] = {
    "none": "the frozen base as it is",
    "full": "full fine-tuning: every parameter of the base is trained",
    "probe": "the linear probe: a logistic regression on the frozen base's last hidden states of the prompt",
}
