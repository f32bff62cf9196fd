"""Virtual tokens that begin as real ones."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from ctxpeft.spec.base import Domain
from ctxpeft.spec.blocks import InitSpec


class Vocabulary(InitSpec):
    """Embeddings of the host's own tokens: those of `text`, from its beginning and again until there are enough, or of
    tokens drawn from the first `top` (all of them where left out; low numbers are frequent words in most vocabularies).
    """

    cites: ClassVar[str] = "Prompt Tuning, arXiv:2104.08691, section 3.1"
    equation: ClassVar[str] = "rows of the token embedding"
    from_vocabulary: ClassVar[bool] = True
    kind: Literal["vocabulary"] = "vocabulary"
    text: Annotated[str, Field(min_length=1)] | None = None
    top: Annotated[int, Field(ge=1), Domain(100, 10000, log=True)] | None = None

    def fill_(self, tensor: Tensor) -> None:
        """Zero until the host's embeddings are there."""
        nn.init.zeros_(tensor)
