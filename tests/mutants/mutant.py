"""What a mutant is, and how one names the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """In `file` of the package `old` becomes `new`; `tests` are pytest's arguments for those that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def algebra(*laws: str) -> tuple[str, ...]:
    """Laws of the algebra by id."""
    return ("tests/laws/test_algebra.py", "-k", " or ".join(laws))


def shipped(law: str, *variants: str, host: str = "TestOnLlama") -> tuple[str, ...]:
    """A law of hosts for shipped variants."""
    return tuple(f"tests/laws/test_shipped.py::{host}::test_law[{law}-{variant}]" for variant in variants)


def mixed(law: str, family: str = "llama") -> tuple[str, ...]:
    """A law of hosts for the variant that uses every merge, source and gate."""
    return (f"tests/hosts/test_families.py::TestFamilies::test_law[{law}-mixed-{family}]",)
