"""The report answers first, needs nothing but itself, and escapes what it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from ctxpeft.analysis.statistics import Interval
from ctxpeft.search.finals import Versus
from ctxpeft.search.outcome import RateResult, Row
from ctxpeft.search.report.choices import choices_of
from ctxpeft.search.report.page import render
from ctxpeft.search.run import Found
from ctxpeft.spec.load import load_variant

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


class Checker(HTMLParser):
    """Every element is closed, and none loads anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert all(reference.startswith("#") for reference in checker.references)
    assert "@import" not in html
    assert "url(http" not in html


def test_is_complete_and_self_contained(found: Found) -> None:
    html = (found.out / "report.html").read_text(encoding="utf-8")
    check(html)
    assert html.count("<svg") >= 3
    assert "prefers-color-scheme: dark" in html
    assert "ctxpeft search tiny.yaml" in html
    assert (
        f"{len([r for r in found.rows if r.outcome in ('completed', 'pruned')]) - 2} designs were trained"
        in html
    )
    answer = html.index("is the best design found")
    assert (
        answer < html.index("How many were tried") < html.index("Every trial") < html.index("To do it again")
    )
    for row in found.rows:
        assert f'<td class="n">{row.number}</td>' in html


def test_says_the_word_of_significance(found: Found) -> None:
    assert found.finals is not None
    versus = Versus("prefix-tuning", "test", "accuracy", True, 0.7, 0.6, Interval(0.1, 0.02, 0.2))
    finals = replace(found.finals, versus=[versus])
    assert "it is significantly better" in render(found.rows, finals, found.about)
    covers = replace(versus, interval=Interval(0.1, -0.02, 0.2))
    html = render(found.rows, replace(finals, versus=[covers]), found.about)
    assert "the difference is not significant" in html
    assert "+0.1000 [-0.0200, +0.2000]" in html


def test_less_is_better_where_the_metric_is_a_loss() -> None:
    interval = Interval(-0.1, -0.2, -0.02)
    assert Versus("a", "test", "token_loss", False, 1.0, 1.1, interval).verdict == "better"
    assert Versus("a", "test", "accuracy", True, 1.0, 1.1, interval).verdict == "worse"


def test_a_study_without_a_design_has_no_answer_yet(found: Found) -> None:
    html = render([row for row in found.rows if row.anchor], None, found.about)
    check(html)
    assert "there is no answer yet" in html
    assert "<pre># yaml" not in html


def test_an_empty_study_renders(found: Found) -> None:
    check(render([], None, found.about))


def test_what_it_shows_is_escaped(found: Found) -> None:
    rows = [*found.rows, Row(99, "failed", reason="<script>alert(1)</script>", templates=("<b>",))]
    about = {**found.about, "title": "<i>title</i>"}
    html = render(rows, found.finals, about)
    check(html)
    assert "<script>alert" not in html
    assert "<i>title" not in html


def test_is_the_same_text_every_time(found: Found) -> None:
    assert render(found.rows, found.finals, found.about) == render(found.rows, found.finals, found.about)


def test_effects_are_means_over_trained_designs() -> None:
    def row(number: int, name: str, rung: float) -> Row:
        variant = load_variant("prefix-tuning-plus").to_dict()
        variant["modules"][0]["feature_map"] = {"kind": name}
        return Row(number, "pruned", rung=rung, variant=variant, rates=(RateResult(0.1, rung),), rate=0.1)

    (choice,) = choices_of([row(0, "elu", 2.0), row(1, "gelu", 1.0), row(2, "elu", 3.0)])
    assert choice.question == "feature map"
    assert choice.values == [("gelu", [1.0]), ("elu", [2.0, 3.0])]


def test_pictures_follow_the_colour_scheme(found: Found) -> None:
    html = render(found.rows, found.finals, found.about)
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert all("var(--ink)" in picture and "aria-label" in picture for picture in pictures)
    assert not any(re.search(r"#0[1-5]0[1-5]0[1-5]", picture) for picture in pictures)
