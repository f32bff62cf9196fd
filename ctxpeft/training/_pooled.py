"""A classifier on the mean of an encoder's last hidden states, which sentence encoders are trained for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledClassifier(PreTrainedModel):  # type: ignore[misc]
    """`classifier(mean over the tokens of the last hidden states)`: logits (B, C) from `input_ids` (B, T)."""

    base_model_prefix = "encoder"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # as far as the encoder does
    _supports_attention_backend = True

    def __init__(self, encoder: PreTrainedModel, classes: int) -> None:
        super().__init__(encoder.config)
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, classes, dtype=encoder.dtype)

    @classmethod
    def load(cls, source: str, classes: int, dtype: torch.dtype, **settings: Any) -> MeanPooledClassifier:
        """The encoder of a checkpoint under a new head."""
        return cls(AutoModel.from_pretrained(source, dtype=dtype, **settings), classes)

    def get_input_embeddings(self) -> nn.Module:
        """Those of the encoder."""
        found: nn.Module = self.encoder.get_input_embeddings()
        return found

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits, and the cross-entropy of `labels` (B,) where they are given."""
        hidden_BTD = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weight_BT1 = (mask / mask.sum(1, keepdim=True).clamp(min=1))[..., None].to(hidden_BTD.dtype)
        logits = self.classifier((hidden_BTD * weight_BT1).sum(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
