"""Equations as MathML, which a browser sets without a script; the notation itself where it is not understood."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from latex2mathml.converter import convert
from markupsafe import Markup

from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.latex import NotationError, formula, split
from ctxpeft.spec.variant import Variant

NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'


@dataclass(frozen=True)
class Written:
    """One module: the merge and what its symbols stand for, as markup; where it acts, in words; all of it as text."""

    merge: Markup
    where: tuple[Markup, ...]
    place: str
    text: str


def written(variant: Variant) -> list[Written]:
    """Every module of a variant, in order."""
    found = []
    for text in variant_equations(variant):
        body, _, place = text.partition("   [")
        merge, *where = (mathml(part) for part in split(body))
        found.append(Written(merge, tuple(where), place.removesuffix("]"), text))
    return found


def mathml(text: str) -> Markup:
    """One formula; a reader that knows no MathML finds the notation in `alttext`."""
    try:
        latex = formula(text)
    except NotationError:
        return Markup("<code>{}</code>").format(text)
    found = convert(latex).replace(NAMESPACE, "", 1)
    found = re.sub(r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>", found)  # a name: no space before its argument
    return Markup(found.replace("<math", f'<math alttext="{html.escape(text)}" displaystyle="true"', 1))
