"""Mathematics of a page as MathML, which a browser sets without a script and without a network.

Pages write it as code hosts read it: inline between dollar-backtick pairs, displayed in a fence `math`. Each is
replaced by a word of its own before the page is read as Markdown, and the word by MathML afterwards.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_MATHS = re.compile(r"^```math\n(?P<block>.*?)^```$|\$`(?P<inline>[^`\n]+)`\$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"<p>(mathdisplay(\d+)end)</p>|math(?:display|inline)(\d+)end")
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'


def lift(markdown: str) -> tuple[str, list[str]]:
    """The page with a word for each formula, and the formulas as MathML."""
    found: list[str] = []

    def word(match: re.Match[str]) -> str:
        block = match["block"] is not None
        found.append(mathml(match["block"] if block else match["inline"], block))
        return f"math{'display' if block else 'inline'}{len(found) - 1}end"

    return _MATHS.sub(word, markdown), found


def lower(page: str, found: list[str]) -> str:
    """The HTML with MathML for the words."""
    return _WORD.sub(
        lambda m: f'<div class="equation">{found[int(m[2])]}</div>' if m[1] else found[int(m[3])], page
    )


def mathml(latex: str, block: bool = False) -> str:
    """One formula; a reader that knows no MathML finds the LaTeX in `alttext`."""
    latex = " ".join(latex.split())
    found = convert(latex.replace(r"\mathrm{", r"\operatorname{")).replace(NAMESPACE, "", 1)
    found = re.sub(r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>", found)  # a name: no space before its argument
    display = 'display="block"' if block else 'display="inline" displaystyle="true"'
    return found.replace('display="inline"', f'alttext="{html.escape(latex)}" {display}', 1)
