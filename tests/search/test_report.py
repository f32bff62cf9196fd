"""The report answers first, needs nothing but itself, and escapes what it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
import yaml

from ctxpeft.analysis.statistics import Interval
from ctxpeft.analysis.table import p_value
from ctxpeft.search.anchors import UNSIZED
from ctxpeft.search.finals import Versus, corrected
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.outcome import RateResult, Row
from ctxpeft.search.report.choices import choices_of
from ctxpeft.search.report.page import SECTIONS, render
from ctxpeft.search.report.words import answer
from ctxpeft.search.run import Found
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.latex import split
from ctxpeft.spec.load import load_variant

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


class Checker(HTMLParser):
    """Every element is closed, no id stands twice, and nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.references.append(value or "")
            if key == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Page(HTMLParser):
    """The text of cells, by table, and of some other elements, as a reader without a script sees it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, list[str]] = {"pre": [], "tile": []}
        self.section = ""
        self.depth: list[tuple[str, str]] = []
        self.feed(html)

    def table(self, name: str) -> list[list[str]]:
        """Rows of a table by its id, else by the section it is the first of; a cell's first line only."""
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[name]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "h2":
            self.section = found.get("id") or ""
        if tag == "table":
            name = found.get("id") or self.section
            self.rows = self.tables.setdefault(name, [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "pre":
            self.texts["pre"].append("")
        if found.get("class") == "tile":
            self.texts["tile"].append("")
        if tag not in VOID:
            self.depth.append((tag, found.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        self.depth.pop()

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.depth]
        if "pre" in tags:
            self.texts["pre"][-1] += data
        elif any(kind == "tile" for _, kind in self.depth):
            self.texts["tile"][-1] += data + " "
        elif ("td" in tags or "th" in tags) and not any(kind == "aside" for _, kind in self.depth):
            self.rows[-1][-1] += data


def check(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert all(reference.startswith("#") for reference in checker.references)
    assert len(set(checker.ids)) == len(checker.ids)
    assert {reference[1:] for reference in checker.references} <= set(checker.ids)
    assert "@import" not in html
    assert "url(http" not in html


def test_is_complete_and_self_contained(found: Found) -> None:
    html = (found.out / "report.html").read_text(encoding="utf-8")
    check(html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "ctxpeft search tiny.yaml" in html
    places = [html.index(f'id="{name}"') for name, _ in SECTIONS]
    assert places == sorted(places), "the answer first, how to do it again last"
    assert html.index("is the best design found") < places[0]
    assert html.count("<svg") == 5
    for name, _ in SECTIONS:
        assert f'href="#{name}"' in html


def test_no_address_stands_in_it(found: Found) -> None:
    """Not even the names of the XML namespaces, which HTML does not need."""
    assert "://" not in (found.out / "report.html").read_text(encoding="utf-8")


def test_the_answer_is_the_finals(found: Found) -> None:
    finals = found.finals
    assert finals is not None
    page = Page(render(found.rows, finals, found.about))
    winner = next(m for m in finals.methods if m.number == finals.winner)
    rows = page.table("anchors")
    assert rows[1][:2] == [f"found (trial {finals.winner})", f"{winner.parameters:,}"]
    assert rows[1][3] == f"{finals.versus[0].winner:.4f}"
    assert len(rows) == 2 + len(finals.versus)
    for cells, versus in zip(rows[2:], finals.versus, strict=True):
        i = versus.interval
        told = f"{i.mean:+.4f} [{i.low:+.4f}, {i.high:+.4f}]"
        assert cells[0] == versus.anchor
        assert cells[3:] == [f"{versus.other:.4f}", told, p_value(versus.adjusted), versus.verdict]


def test_what_the_guide_was_told_stands_in_it(found: Found, tiny_job: Job) -> None:
    laboratory = tiny_job.open()
    assert laboratory.guide == laboratory.facts
    told = f"Known of model and data: {escape(laboratory.facts.sentence())}."
    assert told in render(found.rows, found.finals, found.about)
    older = {k: v for k, v in found.about.items() if k not in ("input_tokens", "gqa", "query_scale")}
    assert "Known of model and data: 81 training examples." in render(found.rows, found.finals, older)
    free = with_settings(tiny_job.space, {"search": {"guide": False}})
    assert replace(tiny_job, space=free).open().guide is None


def test_tells_what_was_guessed_of_the_data(found: Found) -> None:
    task = {**found.about["tasks"][0], "notes": ["my.csv: the column 'a<b' is used as text"]}
    page = render(found.rows, found.finals, {**found.about, "tasks": [task]})
    assert f"{task['name']}: my.csv: the column &#39;a&lt;b&#39; is used as text." in page
    older = {**found.about, "tasks": [{k: v for k, v in task.items() if k != "notes"}]}
    assert "is used as text" not in render(found.rows, found.finals, older)


def test_an_anchor_stands_with_both_its_sizes(found: Found) -> None:
    rows = [replace(row, published=24_576, size="count 40") if row.anchor else row for row in found.rows]
    assert "nearest size, count 40; 24,576 as published" in render(rows, found.finals, found.about)
    unsized = [replace(row, size=UNSIZED) if row.anchor else row for row in found.rows]
    assert "has no size to turn" in render(unsized, found.finals, found.about)
    assert "has no size to turn" not in render(found.rows, found.finals, found.about)


def test_the_design_is_written_as_mathematics_and_as_its_file(found: Found) -> None:
    assert found.best is not None
    html = render(found.rows, found.finals, found.about)
    variant = load_variant(found.best.variant)
    for equation in variant_equations(variant):
        for part in split(equation.partition("   [")[0]):
            assert f'<math alttext="{escape(part)}"' in html
    page = Page(html)
    written = load_variant(yaml.safe_load(page.texts["pre"][0]))
    assert written.fingerprint() == found.best.fingerprint
    assert written.training.learning_rate == found.best.rate


def test_every_trial_stands_in_the_table_with_its_numbers(found: Found) -> None:
    head, *rows = Page(render(found.rows, found.finals, found.about)).table("trials")
    assert head[:3] == ["trial", "outcome", "design"]
    assert "validation accuracy" in head
    column = {name: head.index(name) for name in head}
    by_number = {int(cells[0]): cells for cells in rows}
    assert sorted(by_number) == [row.number for row in found.rows]
    for row in found.rows:
        cells = by_number[row.number]
        assert cells[column["outcome"]] == row.outcome
        assert cells[column["parameters"]] == (f"{row.parameters:,}" if row.parameters else "")
        assert cells[column["at the rung"]] == ("" if row.rung is None else f"{row.rung:.4f}")
        assert cells[column["full run"]] == ("" if row.value is None else f"{row.value:.4f}")
        accuracy = row.metrics.get("accuracy")
        assert cells[column["validation accuracy"]] == ("" if accuracy is None else f"{accuracy:.4f}")
        assert cells[column["rate"]].rstrip("*") == (f"{row.rate:g}" if row.rate else "")
        assert cells[column["rate"]].endswith("*") == row.rate_at_edge


def test_a_trial_carries_its_own_file(found: Found) -> None:
    html = render(found.rows, found.finals, found.about)
    files = [yaml.safe_load(text) for text in Page(html).texts["pre"][1:-1]]
    found_prints = {load_variant(file).fingerprint() for file in files}
    assert found_prints == {row.fingerprint for row in found.rows if row.fingerprint}


def test_counts_are_the_studys(found: Found) -> None:
    tiles = Page(render(found.rows, found.finals, found.about)).texts["tile"]
    told = {" ".join(text.split()[1:]): int(text.split()[0]) for text in tiles}
    designs = [row.outcome for row in found.rows if not row.anchor]
    assert told["designs trained"] == 5
    assert told["anchors"] == 2
    for outcome in ("completed", "pruned", "failed", "memoised", "infeasible"):
        assert told.get(outcome, 0) == designs.count(outcome)


def test_effects_are_counted_over_the_trained_designs(found: Found) -> None:
    rows = Page(render(found.rows, found.finals, found.about)).table("effects-table")[1:]
    trained = [row for row in found.rows if not row.anchor and row.rung is not None]
    for question in {cells[0] for cells in rows}:
        assert sum(int(cells[2]) for cells in rows if cells[0] == question) == len(trained)
    best = min(row.rung for row in trained if row.rung is not None)
    assert f"{best:.4f}" in {cells[4] for cells in rows}


def test_pruned_and_completed_are_compared_at_the_rung(found: Found) -> None:
    done = [(r.rung, r.value) for r in found.rows if r.rung is not None and r.value is not None]
    pairs = [(a, b) for i, a in enumerate(done) for b in done[i + 1 :]]
    wrong = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)
    html = render(found.rows, found.finals, found.about)
    assert len(done) >= 4
    assert f"The rung had {wrong} of {len(pairs)} pairs of fully trained trials in the wrong order." in html


def test_without_finals_it_compares_on_the_one_seed_and_says_so(found: Found) -> None:
    html = render(found.rows, None, found.about)
    check(html)
    assert "no interval can be given" in html
    best = min((r for r in found.rows if not r.anchor and r.value is not None), key=lambda r: r.value or 0)
    anchor = next(r for r in found.rows if r.anchor)
    assert best.value is not None
    assert anchor.value is not None
    assert f"{best.value - anchor.value:+.4f}" in html


def test_says_the_word_of_significance(found: Found) -> None:
    assert found.finals is not None
    versus = Versus("prefix-tuning", "test", "accuracy", True, 0.7, 0.6, Interval(0.1, 0.02, 0.2))
    finals = replace(found.finals, versus=[versus])
    assert "It is significantly better than prefix-tuning." in render(found.rows, finals, found.about)
    covers = replace(versus, interval=Interval(0.1, -0.02, 0.2))
    html = render(found.rows, replace(finals, versus=[covers]), found.about)
    assert "It is not distinguishable from prefix-tuning." in html
    assert "+0.1000 [-0.0200, +0.2000]" in html
    corrected = replace(versus, adjusted=0.2)
    assert corrected.verdict == "not significant", "the corrected p-value decides, not the interval"
    html = render(found.rows, replace(finals, versus=[corrected, corrected]), found.about)
    assert "the difference is not significant (p 0.200, corrected for 2 comparisons)" in "\n".join(
        answer(found.rows, replace(finals, versus=[corrected, corrected]), found.about)
    )
    assert "corrected for the number of comparisons in the table (Holm)" in html


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
    assert [(answer.name, answer.scores) for answer in choice.answers] == [
        ("gelu", [1.0]),
        ("elu", [2.0, 3.0]),
    ]
    assert choice.answers[0].interval is None, "one design has no spread"
    assert choice.answers[0].effect is not None
    assert choice.answers[0].effect.mean == pytest.approx(-1.5)


def test_pictures_follow_the_colour_scheme(found: Found) -> None:
    html = render(found.rows, found.finals, found.about)
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert all("var(--ink)" in picture and "aria-label" in picture for picture in pictures)
    assert not any(re.search(r"#0[1-5]0[1-5]0[1-5]", picture) for picture in pictures)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `#rgb` or `#rrggbb`."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_of_wcag_aa_in_both_schemes_and_in_print(found: Found) -> None:
    html = render(found.rows, found.finals, found.about)
    schemes = [
        dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", html, re.S)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for text in ("ink", "muted", "accent", "second", "good", "bad"):
            for ground in ("page", "card"):
                light, dark = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, scheme)


def test_verdicts_are_corrected_for_the_number_of_anchors() -> None:
    found = [
        Versus(name, "test", "accuracy", True, 0.7, 0.6, Interval(0.1, 0.001, 0.2, p=p))
        for name, p in (("a", 0.03), ("b", 0.001), ("c", 0.04))
    ]
    assert [v.verdict for v in found] == ["better"] * 3, "each interval leaves zero out"
    adjusted = corrected(found)
    assert [v.adjusted for v in adjusted] == pytest.approx([0.06, 0.003, 0.06])
    assert [v.verdict for v in adjusted] == ["not significant", "better", "not significant"]
