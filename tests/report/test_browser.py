"""The page in a real browser, from a file: no request, sorting, filtering, no overflow.

A second page holds the report in a frame of each width, acts as a reader would, and leaves what
it saw in its own text.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed"),
]

READER = """<!doctype html><meta charset="utf-8"><body><iframe id="f" src="%s"
style="border: 0; height: 900px; width: 400px"></iframe><pre id="seen"></pre><script>
const frame = document.getElementById("f");
const column = (table, i) => Array.from(table.tBodies[0].rows).filter((r) => !r.hidden)
  .map((r) => r.cells[i].textContent);
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement, seen = {};
  seen.requests = frame.contentWindow.performance.getEntriesByType("resource").map((e) => e.name);
  for (const width of [400, 1600]) {
    frame.style.width = width + "px";
    seen["overflow" + width] = root.scrollWidth - width;
    seen["high" + width] = root.scrollHeight;
  }
  const table = page.querySelector("table[aria-label='all trials']");
  const heads = Array.from(table.tHead.rows[0].cells);
  const of = (title) => heads.findIndex((h) => h.textContent === title);
  const press = (title) => heads[of(title)].querySelector("button").click();
  press("balanced %%");
  seen.up = column(table, of("balanced %%"));
  seen.sort = heads[of("balanced %%")].getAttribute("aria-sort");
  press("balanced %%");
  seen.down = column(table, of("balanced %%"));
  press("method");
  seen.methods = column(table, of("method"));
  const input = table.closest(".table").querySelector("input");
  input.value = "RETRAIN fairdarts";
  input.dispatchEvent(new frame.contentWindow.Event("input"));
  seen.filtered = column(table, of("phase")).concat(column(table, of("method")));
  seen.output = table.closest(".table").querySelector("output").textContent;
  seen.title = page.title;
  seen.scripts = page.scripts.length;
  document.getElementById("seen").textContent = JSON.stringify(seen);
};
</script>"""


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("browser")
    reader = folder / "reader.html"
    reader.write_text(READER % f"file://{quote(str(page))}", encoding="utf-8")
    assert BROWSER is not None
    flags = ["--headless=new", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    if os.name == "posix" and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses its sandbox to root
    done = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={folder}", "--virtual-time-budget=20000", str(reader)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found.group(1)))  # type: ignore[no-any-return]


def test_the_page_loads_from_a_file_without_a_request(seen: dict[str, Any]) -> None:
    assert seen["title"] == "nas_sweeps: a store without a grid"
    assert seen["requests"] == []
    assert seen["scripts"] == 1


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_overflows(width: int, seen: dict[str, Any]) -> None:
    assert seen[f"overflow{width}"] <= 0
    assert seen[f"high{width}"] > 1000


def test_a_click_sorts_numbers_as_numbers_and_another_turns_them(seen: dict[str, Any]) -> None:
    known = [float(text) for text in seen["up"] if text != "–"]
    assert known == sorted(known)
    assert len(set(known)) > 5
    assert seen["sort"] == "ascending"
    assert seen["up"][len(known) :] == ["–"] * (len(seen["up"]) - len(known)), "nothing goes last"
    assert [float(t) for t in seen["down"][: len(known)]] == known[::-1]
    assert seen["down"][len(known) :] == seen["up"][len(known) :]


def test_texts_sort_as_texts(seen: dict[str, Any]) -> None:
    own = [m for m in seen["methods"] if m in ("darts", "fairdarts", "ssf_nas")]
    assert own == sorted(own)
    assert len(own) > 20


def test_the_filter_keeps_rows_with_every_word(seen: dict[str, Any]) -> None:
    assert seen["filtered"] == ["retrain"] * 4 + ["fairdarts"] * 4
    assert seen["output"].startswith("4 of ")
