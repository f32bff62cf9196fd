"""Which answer a text gives, and how many are right, by the conventions of MetaMathQA and GSM8K."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, DivisionByZero, InvalidOperation

MARKS = ("The answer is: ", "The answer is ", "The final answer is: ", "The final answer is ", "#### ")
AROUND = " .!?$%"  # GSM8K leaves out the per cent sign


def answer(text: str) -> str | None:
    """What follows the last of the first mark that occurs, to the end of its line; None without any mark."""
    text = text.strip().rstrip(".!?")
    mark = next((mark for mark in MARKS if mark in text), None)
    if mark is None:
        return None
    line, _, _ = text.rpartition(mark)[2].strip().partition("\n")
    return line.strip(AROUND)


def value(text: str | None) -> float | str | None:
    """The number that an answer is, a fraction included; the text itself where it is none."""
    if text is None:
        return None
    try:
        numbers = [Decimal(part.strip()) for part in text.split("/")]
        if len(numbers) == 1:
            return float(numbers[0])
        if len(numbers) == 2 and numbers[1] != 0:
            return float(numbers[0] / numbers[1])
    except (InvalidOperation, DivisionByZero, ValueError):
        pass
    return text


def accuracy(predictions: Sequence[str], responses: Sequence[str]) -> float:
    """The share of predictions whose answer is that of the response.

    Raises:
        ValueError: a response gives no answer, or the two are not of equal number.
    """
    hits = 0
    for prediction, response in zip(predictions, responses, strict=True):
        right = value(answer(response))
        if right is None:
            raise ValueError(f"no answer in the response {response!r}")
        hits += value(answer(prediction)) == right
    return hits / len(responses)
