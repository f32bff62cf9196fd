"""The blackboard notation of `ctxpeft.spec.equation` as LaTeX, so that a page can set it as mathematics.

The notation is what `written` of a block gives, ours or a third party's: Greek letters, subscripts as characters (`kⱼ`)
or after `_`, superscripts as characters (`ᵀ`, `⁻¹`) or after `^`, names of functions spelled out, products by
juxtaposition, `⊙` or `⊗`, quotients with `/`. What is no formula ("number of visible keys") is set as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SYMBOLS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "ζ": r"\zeta", "θ": r"\theta", "λ": r"\lambda", "μ": r"\mu",
    "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\varphi", "ω": r"\omega", "Λ": r"\Lambda", "Σ": r"\sum",
    "⊙": r"\odot", "⊗": r"\otimes", "⋯": r"\cdots", "·": r"\cdot", "−": "-", "←": r"\leftarrow", "‖": r"\Vert",
    "∞": r"\infty", "≥": r"\geq", "≤": r"\leq", "×": r"\times", "∈": r"\in", "√": r"\surd",
}  # fmt: skip
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ᵢⱼₖₜₕ", "0123456789ijkth")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
RELATIONS = ("←", "=", "≤", "≥", "∈")
JOINING = ("⊙", "⊗", "·", "×")
MACRON = "\u0304"
CLOSING = {"(": ")", "[": "]"}
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<word>[A-Za-z]{2,}(?:_[A-Za-z]+)*)"
    r"|(?P<letter>[^\W\d_ᵀᵢⱼₖₜₕ₀-₉⁰¹²³⁴-⁹][\u0300-\u036f]*'*)"
    r"|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"|(?P<sub>[₀-₉ᵢⱼₖₜₕ]+)"
    r"|(?P<sup>ᵀ|[⁰¹²³⁴-⁹⁻⁺]+)"
    r"|(?P<mark>[_^])"
    r"|(?P<other>.)"
)
_PROSE = re.compile(r"\b[A-Za-z]{2,} [A-Za-z]{2,}\b(?![(_^])")

_WORDS = re.compile(r"[\w ,.;:'()/+−-]+")


class NotationError(ValueError):
    """A text that is not in the notation; it is shown as it stands."""


@dataclass(frozen=True)
class Equation:
    """One line: the merge, what its symbols stand for, and where it acts (plain words)."""

    merge: str
    where: tuple[str, ...] = ()
    place: str = ""


def latex_equation(text: str) -> Equation:
    """A line of `variant_equations` with its formulas as LaTeX. Raises NotationError."""
    body, _, place = text.partition("   [")
    first, *rest = [formula(part) for part in split(body)]
    return Equation(first, tuple(rest), place.removesuffix("]"))


def split(text: str) -> list[str]:
    """The parts between commas that stand outside brackets."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def formula(text: str) -> str:
    """One formula. Raises NotationError where a bracket is not closed or an operand is missing."""
    if _PROSE.search(text):
        left, relation, right = text.partition(" = ")
        if relation and not _PROSE.search(left):
            return f"{formula(left)} = {_prose(right)}"
        return _prose(text)
    parser = _Parser(text)
    found = parser.expression()
    if parser.peek() is not None:
        raise NotationError(f"'{text}': nothing expected at '{parser.rest()}'")
    return found


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


@dataclass
class _Factor:
    """LaTeX of one factor.

    inner: what a bracket holds, since a fraction does without the bracket. named: whether it can take an argument.
    operator: whether it stands between two factors.
    """

    latex: str
    inner: str | None = None
    named: bool = False
    operator: bool = False


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self.tokens = [_Token(str(m.lastgroup), m[0]) for m in _TOKEN.finditer(text.strip())]
        self.at = 0

    def expression(self, until: str = "") -> str:
        """Terms joined by signs, relations and commas, up to a closing character that is not taken."""
        parts: list[str] = []
        complete = False
        while (token := self.peek()) is not None and token.text != until:
            complete = token.text not in ("+", "−", "-", ",", *RELATIONS)
            if complete:
                parts.append(self.product(until))
            else:
                self.take()
                parts.append(SYMBOLS.get(token.text, token.text))
        if not complete:
            raise NotationError("an operand is missing")
        return " ".join(parts)

    def product(self, until: str) -> str:
        """Factors side by side; a quotient takes the bracket before it, else everything before it."""
        factors: list[_Factor] = []
        while (token := self.peek()) is not None and token.text != until:
            if token.text in ("+", "−", "-", ",", *RELATIONS):
                break
            if token.text == "/":
                self.take()
                if not factors:
                    raise NotationError("a quotient has no numerator")
                over = factors.pop() if factors[-1].inner is not None else _Factor(_joined(factors))
                if over.inner is None:
                    factors = []
                under = self.factor()
                factors.append(
                    _Factor(rf"\frac{{{over.inner or over.latex}}}{{{under.inner or under.latex}}}")
                )
            elif token.text in JOINING or token.text == "⋯":
                self.take()
                factors.append(_Factor(SYMBOLS[token.text], operator=True))
            else:
                factors.append(self.factor())
        if not factors:
            raise NotationError("an operand is missing")
        return _joined(factors)

    def factor(self) -> _Factor:
        """A base with what is written below and above it."""
        base = self.base()
        argument = self.peek(spaces=True)
        if base.inner is None and base.named and argument is not None and argument.text in CLOSING:
            base = _Factor(base.latex + self.base().latex)
        below, above = "", ""
        while (token := self.peek(spaces=True)) is not None:
            if token.kind == "sub":
                below += self.take().text.translate(SUBSCRIPTS)
            elif token.kind == "sup":
                above += r"\top" if token.text == "ᵀ" else token.text.translate(SUPERSCRIPTS)
                self.take()
            elif token.kind == "mark":
                self.take()
                script = self.script()
                below, above = (below + script, above) if token.text == "_" else (below, above + script)
            else:
                break
        if not below and not above:
            return base
        below, above = (f"_{{{below}}}" if below else ""), (f"^{{{above}}}" if above else "")
        return _Factor(base.latex + below + above)

    def script(self) -> str:
        """What stands after `^` or `_`: a bracket without its brackets, or one symbol; quotients stay on the line."""
        token = self.take()
        if token.text != "(":
            return _symbol(token)
        parts = []
        while (token := self.take()).text != ")":
            parts.append("/" if token.text == "/" else _symbol(token))
        return " ".join(part for part in parts if part)

    def base(self) -> _Factor:
        """A bracket, a norm, a root, a function with its argument, or a symbol."""
        token = self.take()
        if token.text in CLOSING:
            close = CLOSING[token.text]
            inner = self.expression(close)
            self.closed(close)
            return _Factor(rf"\left{token.text} {inner} \right{close}", inner if token.text == "(" else None)
        if token.text == "‖":
            inner = self.expression("‖")
            self.closed("‖")
            return _Factor(rf"\left\Vert {inner} \right\Vert")
        if token.text == "√":
            return _Factor(
                rf"\surd {self.factor().latex}"
            )  # \sqrt needs a font with mathematics, or it vanishes
        if token.text == "Σ":
            return _Factor(r"\sum")
        return _Factor(_symbol(token), named=token.kind in ("word", "letter"))

    def peek(self, spaces: bool = False) -> _Token | None:
        """The next token, which stays; spaces are passed over unless asked for."""
        while not spaces and self.at < len(self.tokens) and self.tokens[self.at].kind == "space":
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> _Token:
        """The next token that is no space."""
        token = self.peek()
        if token is None:
            raise NotationError("a bracket is not closed, or an operand is missing")
        self.at += 1
        return token

    def closed(self, close: str) -> None:
        """Take the closing character."""
        if self.take().text != close:
            raise NotationError(f"expected '{close}'")

    def rest(self) -> str:
        """What was not read."""
        return "".join(token.text for token in self.tokens[self.at :])


def _symbol(token: _Token) -> str:
    if token.kind == "word":
        return rf"\text{{{token.text}}}" if "_" in token.text else rf"\operatorname{{{token.text}}}"
    if token.kind == "number":
        return token.text
    if token.text in SYMBOLS:
        return SYMBOLS[token.text]
    if token.kind == "letter":
        letter, primes = token.text.rstrip("'"), token.text.count("'")
        bare = letter.rstrip(MACRON)
        shown = SYMBOLS.get(bare, bare)
        return (rf"\bar{{{shown}}}" if bare != letter else shown) + "'" * primes
    if token.text in "+-":
        return token.text
    raise NotationError(f"'{token.text}' is not part of the notation")


def _joined(factors: list[_Factor]) -> str:
    """Factors side by side, a thin space between two that no operator joins."""
    text = ""
    for before, factor in zip([None, *factors], factors, strict=False):
        spaced = before is not None and not before.operator and not factor.operator
        text += (r" \, " if spaced else " ") + factor.latex
    return text.strip()


def _prose(text: str) -> str:
    """Words as text. LaTeX's own characters do not occur in them."""
    if not _WORDS.fullmatch(text):
        raise NotationError(f"'{text}' is neither a formula nor plain words")
    return rf"\text{{{text}}}"
