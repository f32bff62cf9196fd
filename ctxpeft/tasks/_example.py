"""One example: what fills the prompt, the answer, and where it was found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """One example: the values that fill the template, and the answer. Compact, since there may be millions.

    `names` are the template's fields and `values` what fills them. `target` is the label, the completion or the right
    choice; empty in language modelling. `file`, `unit` and `number` say where it was found, as in `Row`. `choices` are
    those of a multiple choice. `unseen` says that the task keeps the row from training.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    target: str
    file: str = ""
    unit: str = ""
    number: int = 0
    choices: tuple[str, ...] = ()
    unseen: bool = False
    _digest: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def fields(self) -> dict[str, str]:
        """What the template is filled with."""
        return dict(zip(self.names, self.values, strict=True))

    @property
    def where(self) -> str:
        """`file line 7`, for messages."""
        return f"{self.file} {self.unit} {self.number}"

    @property
    def text(self) -> str:
        """All values joined: what decides whether two examples are the same."""
        return "\n".join(self.values)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the text that case and spacing do not change: splits and duplicates go by it."""
        if self._digest is None:
            found = hashlib.sha256(" ".join(self.text.casefold().split()).encode()).digest()
            object.__setattr__(self, "_digest", found)
            return found
        return self._digest

    @property
    def key(self) -> str:
        """`digest` in hexadecimal digits."""
        return self.digest.hex()

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, a hash of the values, the target and the choices: the same in every run and for
        every model."""
        parts = "\x00".join((self.text, self.target, *self.choices))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]
