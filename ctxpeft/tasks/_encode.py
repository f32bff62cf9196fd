"""Examples to token ids: a prompt the model is given and an answer it has to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from ctxpeft.errors import DataError
from ctxpeft.tasks._collate import IGNORED, Collator, pad_id
from ctxpeft.tasks._example import Example
from ctxpeft.tasks._load import TaskData

MANY = 50_000
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; `answer` ends with the end-of-text token where the tokenizer has one.

    In language modelling the prompt is the one token before the first predicted one, and a long text gives
    several, each token predicted exactly once.
    """

    prompt: Ids
    answer: Ids
    example: Example

    def features(self) -> dict[str, Any]:
        """What the Trainer reads: `input_ids`, and `labels` that ignore the prompt."""
        return {
            "input_ids": [*self.prompt, *self.answer],
            "labels": [IGNORED] * len(self.prompt) + list(self.answer),
        }

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class Encoder:
    """Encodes the examples of one task for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer.
        task: the data; its template, label words and `max_length` decide the prompt.
        positions: the most tokens the model can see, if it has a bound.
        ends: whether answers end with the end-of-text token (see `can_end`).

    Raises:
        DataError: the template and the longest label leave no room for text in `max_length`, or two labels
            are written with the same tokens.
    """

    def __init__(
        self, tokenizer: Any, task: TaskData, positions: int | None = None, ends: bool = True
    ) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self._end: Ids = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.eos: Ids = self._end if ends else ()
        self.max_length = min(task.spec.max_length, positions or task.spec.max_length)
        stem = task.template.rstrip(" ")
        ends_in_space = stem != stem.rstrip()
        self._template = stem
        self._joint = "" if ends_in_space or not stem else " "
        self._words = {label: task.spec.label_words.get(label, label) for label in task.labels}
        self.skipped = 0
        self.label_ids: dict[str, Ids] = {}
        if task.kind == "classification":
            self._encode_labels()

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """All examples, in order; answers longer than `max_length` are left out (`skipped` counts).

        Raises:
            DataError: nothing is left.
        """
        if self.task.kind == "language_modelling":
            encoded = [part for example in examples for part in self._chunks(example)]
        elif self.task.kind == "multiple_choice":
            encoded = [part for example in examples if (part := self._chosen(example)) is not None]
            self.skipped += len(examples) - len(encoded)
        elif self.task.kind == "completion":
            encoded = [part for example in examples if (part := self._completion(example)) is not None]
            self.skipped += len(examples) - len(encoded)
        else:
            prompts = self._prompts(examples, max(map(len, self.label_ids.values())) + len(self.eos))
            encoded = [
                Encoded(prompt, self.label_ids[example.target] + self.eos, example)
                for prompt, example in zip(prompts, examples, strict=True)
            ]
        if examples and not encoded:
            raise DataError(
                f"max_length={self.max_length} is shorter than every answer of {self.task.spec.name}"
            )
        return encoded

    def collator(self) -> Collator:
        """Makes batches of encoded examples."""
        return Collator(pad_id(self.tokenizer))

    def on_demand(self, examples: Sequence[Example]) -> Sequence[Encoded]:
        """`encode` where there is exactly one result an example, each made when it is asked for: for data of which
        training reads a part. Other kinds, and few examples, are encoded at once.
        """
        if self.task.kind != "classification" or len(examples) <= MANY:
            return tuple(self.encode(examples))
        return OnDemand(self, examples)

    def text_of(self, example: Example) -> str:
        """The prompt as text."""
        return self._template.format(**example.fields)

    def answer_text(self, example: Example) -> str:
        """What the model should write after the prompt, without the joining space."""
        return self._words.get(example.target, example.target)

    def choices(self, example: Example) -> list[Ids]:
        """The tokens of every choice after the prompt, in the order of the example; no end-of-text token."""
        before = self.text_of(example)
        prompt = self.ids(before)
        return [self._continuation(before, prompt, choice) for choice in example.choices]

    def ids(self, text: str) -> Ids:
        """Token ids as the start of a sequence: with the beginning-of-text token, without the end."""
        found = tuple(self.tokenizer(text, verbose=False)["input_ids"])
        return found[:-1] if self._end and len(found) > 1 and found[-1:] == self._end else found

    def _continuation(self, before: str, prompt: Ids, text: str) -> Ids:
        """The tokens of `text` after `before`, whose own tokens are `prompt`."""
        whole = self.ids(before + self._joint + text)
        if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            return whole[len(prompt) :]
        return tuple(self.tokenizer(self._joint + text, add_special_tokens=False)["input_ids"])

    def _encode_labels(self) -> None:
        blank = self._template.format(**dict.fromkeys(self._field_names(), "x"))
        prompt = self.ids(blank)
        for label, words in self._words.items():
            self.label_ids[label] = self._continuation(blank, prompt, words)
        owners: dict[Ids, str] = {}
        for label, ids in self.label_ids.items():
            if not ids or ids in owners:
                other = f" exactly like '{owners[ids]}'" if ids else " without any token"
                raise DataError(f"this tokenizer writes the label '{label}'{other}: give other label_words")
            owners[ids] = label
        needed = len(prompt) + max(map(len, owners)) + len(self.eos)
        if needed > self.max_length:
            raise DataError(
                f"max_length={self.max_length} leaves no room for the text: the template and the longest "
                f"label take {needed} tokens"
            )

    def _field_names(self) -> list[str]:
        splits = (self.task.train, self.task.validation, self.task.test, self.task.ood)
        return list(next(split[0].names for split in splits if split))

    def _prompts(self, examples: Sequence[Example], reserved: int) -> list[Ids]:
        room = self.max_length - reserved
        prompts = [self.ids(self.text_of(example)) for example in examples]
        return [
            ids if len(ids) <= room else self._shortened(example, room)
            for ids, example in zip(prompts, examples, strict=True)
        ]

    def _shortened(self, example: Example, room: int) -> Ids:
        """The prompt with the end of its longest field cut so that it has at most `room` tokens."""
        name = max(example.fields, key=lambda key: len(example.fields[key]))
        text = example.fields[name]
        low, high = 0, min(len(text), 32 * room)
        best = self.ids(self._template.format(**{**example.fields, name: ""}))
        while low < high:
            middle = (low + high + 1) // 2
            ids = self.ids(self._template.format(**{**example.fields, name: text[:middle].rstrip()}))
            if len(ids) <= room:
                low, best = middle, ids
            else:
                high = middle - 1
        return best if len(best) <= room else best[:room]

    def _completion(self, example: Example) -> Encoded | None:
        text = self.text_of(example)
        prompt = self.ids(text)
        answer = self._continuation(text, prompt, example.target + (self.task.spec.stop or "")) + self.eos
        room = self.max_length - len(answer)
        if room < 1:
            return None
        if len(prompt) > room:
            prompt = self._shortened(example, room)
        return Encoded(prompt, answer, example)

    def _chosen(self, example: Example) -> Encoded | None:
        """The right choice after a prompt that leaves room for the longest one."""
        choices = self.choices(example)
        longest = max(map(len, choices)) + len(self.eos)
        if longest >= self.max_length:
            return None
        answer = choices[example.choices.index(example.target)] + self.eos
        return Encoded(self._prompts([example], longest)[0], answer, example)

    def _chunks(self, example: Example) -> list[Encoded]:
        ids = self.ids(self.text_of(example))
        if self.tokenizer.bos_token_id is not None and ids[:1] != (self.tokenizer.bos_token_id,):
            ids = (self.tokenizer.bos_token_id, *ids)
        ids = ids + self.eos
        width = self.max_length - 1
        starts = range(0, max(len(ids) - 1, 0), width)
        return [Encoded(ids[s : s + 1], ids[s + 1 : s + 1 + width], example) for s in starts]


class OnDemand(Sequence[Encoded]):
    """The examples of a classification, each encoded when it is asked for and not kept."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example]) -> None:
        self._encoder, self._examples = encoder, examples

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | Sequence[Encoded]:
        if isinstance(index, slice):
            return OnDemand(self._encoder, self._examples[index])
        return self._encoder.encode([self._examples[index]])[0]
