"""The page in a real browser: the table sorts and filters, and without a script it is complete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ctxpeft.search.report.page import render
from ctxpeft.search.run import Found
from tests.search.test_report import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")

DRIVER = """
<pre id="result"></pre>
<script>
  const body = document.querySelector("#trials tbody"), form = document.getElementById("filter");
  const numbers = () => [...body.rows].filter(row => row.offsetParent).map(row => Number(row.cells[0].textContent));
  const head = name => [...document.querySelectorAll("#trials th")].find(th => th.textContent === name);
  const click = name => { head(name).querySelector("button").click(); return [numbers(), head(name).ariaSort]; };
  const type = (text, outcome) => {
    form.elements.text.value = text; form.elements.outcome.value = outcome;
    form.dispatchEvent(new Event("input"));
    return [numbers(), form.querySelector("output").textContent];
  };
  const wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  document.getElementById("result").textContent = JSON.stringify({
    full: click("full run"), again: click("full run"), outcome: click("outcome"), trial: click("trial"),
    gelu: type("gelu", ""), pruned: type("", "pruned"), none: type("no such words", ""), all: type("", ""),
    shown: getComputedStyle(form).display, wide, math: document.querySelector("math").getBoundingClientRect().width,
  });
</script>
"""


def driven(html: str, folder: Path, *options: str) -> dict[str, Any]:
    """What the driver saw in the browser."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    path.write_text(html.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=500,900", profile, *options]
    command = [CHROMIUM, *flags, "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    assert found is not None
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


@needs_browser
def test_the_table_sorts_and_filters(found: Found, tmp_path: Path) -> None:
    seen = driven(render(found.rows, found.finals, found.about), tmp_path)
    by_value = sorted((r for r in found.rows if r.value is not None), key=lambda r: (r.value, r.number))
    ranked = [row.number for row in by_value]
    rest = {row.number for row in found.rows} - set(ranked)
    up, direction = seen["full"]
    assert direction == "ascending"
    assert up[: len(ranked)] == ranked
    down, direction = seen["again"]
    assert direction == "descending"
    assert down[: len(ranked)] == ranked[::-1]
    assert set(up[len(ranked) :]) == set(down[len(ranked) :]) == rest, "what has no value stays below"
    assert seen["trial"][0] == sorted(row.number for row in found.rows)
    outcomes = {row.number: row.outcome for row in found.rows}
    assert [outcomes[n] for n in seen["outcome"][0]] == sorted(outcomes.values())

    gelu = {r.number for r in found.rows if "gelu" in json.dumps(r.variant)}
    assert set(seen["gelu"][0]) == gelu
    assert seen["gelu"][1] == f"{len(gelu)} of {len(found.rows)} trials"
    assert set(seen["pruned"][0]) == {r.number for r in found.rows if r.outcome == "pruned"}
    assert seen["none"] == [[], f"0 of {len(found.rows)} trials"]
    assert len(seen["all"][0]) == len(found.rows)
    assert seen["shown"] == "flex"
    assert seen["wide"], "nothing makes a narrow page scroll sideways"
    assert seen["math"] > 30


def test_without_a_script_the_table_is_whole_and_best_first(found: Found) -> None:
    html = re.sub(r"<script>.*?</script>", "", render(found.rows, found.finals, found.about), flags=re.S)
    assert '<form id="filter" class="filter" hidden>' in html
    assert "<button" not in html
    rows = Page(html).table("trials")[1:]
    values = [float(cells[6]) for cells in rows if cells[6]]
    assert values == sorted(values)
    assert len(rows) == len(found.rows)
