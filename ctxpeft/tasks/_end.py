"""Whether a frozen model can say that its answer is over."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cosine_similarity

SAME = 0.999  # cosine above which two output embeddings give the same token for every hidden state


def can_end(model: Any, tokenizer: Any) -> bool:
    """Whether the end-of-text token can be told from every other token by the frozen output embedding.

    Some models were trained without it: its row is then that of hundreds of tokens that never occur, no hidden
    state can single it out, and training an answer to end with it only adds a loss that cannot fall.
    """
    if tokenizer.eos_token_id is None:
        return False
    output = model.get_output_embeddings()
    if output is None:
        return True
    rows = output.weight.detach()
    with torch.no_grad():
        alike = cosine_similarity(rows.float(), rows[tokenizer.eos_token_id].float().unsqueeze(0), dim=1)
    return int((alike > SAME).sum()) <= 1
