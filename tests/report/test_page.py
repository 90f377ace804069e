"""The page: whole, closed, honest about what is missing, and the same every time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nas_sweeps.grid import Grid, plan
from nas_sweeps.report.figures import FIGURES
from nas_sweeps.report.page import write_report
from nas_sweeps.report.planned import kept_grids, shortfalls
from nas_sweeps.schedule import replay
from nas_sweeps.store import Result, Store
from tests.report.lab import HOSTILE, Lab

GRID = {
    "name": "small <b>",
    "data": {"dataset": "digits"},
    "search": {"methods": ["darts"], "distributions": [{"exp": 0.1}], "seeds": [0, 1, 2]},
    "retrain": {"winners": "each", "seeds": [0]},
}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] not in ("script", "style") else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def parsed(page: Path) -> Page:
    return Page(page)


def test_every_tag_is_closed(parsed: Page) -> None:
    assert parsed.open == []
    assert parsed.all("html") == [{"lang": "en"}]


def test_the_page_asks_for_nothing(parsed: Page, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(parsed.all("script")) == 1, "only ours"
    for tag, attrs in parsed.tags:
        assert "src" not in attrs
        assert tag not in ("img", "iframe", "object", "embed", "base")
        target = attrs.get("href") or attrs.get("xlink:href") or "#"
        if tag == "link":
            assert target == "data:,"
        elif tag == "a":
            assert re.match(r"#|figures/", target)
        else:
            assert target.startswith("#")
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]).", text)) <= {"#"}
    (policy,) = [m["content"] for m in parsed.all("meta") if "http-equiv" in m]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_names_from_the_store_are_text(parsed: Page) -> None:
    assert HOSTILE in parsed.text
    assert "alert('x')" in parsed.text


def test_ids_are_unique_and_every_reference_is_met(parsed: Page) -> None:
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = {attrs["xlink:href"] for _, attrs in parsed.tags if "xlink:href" in attrs}
    assert used <= {f"#{name}" for name in ids}


def test_every_figure_is_there_with_words_and_files(parsed: Page, page: Path) -> None:
    pictures = [attrs for attrs in parsed.all("svg") if attrs.get("role") == "img"]
    assert len(pictures) == len(FIGURES)
    for entry, attrs in zip(FIGURES, pictures, strict=True):
        label = attrs["aria-label"]
        assert label is not None
        assert label.startswith(f"{entry.title}. ")
        assert len(label) > len(entry.title) + 10
        for suffix in ("svg", "pdf", "csv"):
            assert (page.parent / "figures" / f"{entry.name}.{suffix}").stat().st_size > 100


def test_colours_follow_the_theme(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outside_css = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", outside_css)
    assert "prefers-color-scheme: dark" in text


@pytest.mark.system
def test_equal_tables_give_equal_bytes(sweep: Lab, page: Path, tmp_path: Path) -> None:
    """In another process, with another hash seed, other matplotlib settings and another day."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: none\n")
    code = "import sys, nas_sweeps.report.page as page; page.write_report(*sys.argv[1:])"
    environment = {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", code, str(sweep.store.root), str(tmp_path / "again")],
        env=os.environ | environment | {"SOURCE_DATE_EPOCH": "0"},
        check=True,
    )
    first, second = (
        {p.relative_to(d): p.read_bytes() for p in sorted(d.rglob("*")) if p.is_file()}
        for d in (page.parent, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert len(first) == 1 + 3 * len(FIGURES)


def test_an_empty_store_has_a_page_and_no_stale_figure(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    for name in ("figure7.svg", "mine.svg"):
        (out / "figures" / name).write_text("old")
    parsed = Page(write_report(lab.store, out))
    assert "no retrain is done" in parsed.text
    assert "Nothing to draw: it needs a search that is done." in parsed.text
    assert [path.name for path in (out / "figures").iterdir()] == ["mine.svg"]


def test_what_is_no_store_and_what_cannot_be_written_are_said(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no store"):
        write_report(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_report(lab.store, tmp_path / "file")
    (tmp_path / "index.html").write_text("<title>mine, about nas_sweeps</title>")
    with pytest.raises(ValueError, match=r"holds another index\.html"):
        write_report(lab.store, tmp_path)
    with pytest.raises(ValueError, match="among the store's own files"):
        write_report(lab.store, Path(lab.store.root) / "tables")
    with pytest.raises(ValueError, match="a URI cannot be written to"):
        write_report(lab.store, "s3://bucket/report")


def settle(store: Store, number: int, state: str) -> None:
    """Settle one of the grid's searches, and one retrain if there is one."""
    grid = Grid.from_dict(GRID)
    search = plan(grid).searches[number]
    store.register(search)
    result = Result(
        trial_id=search.trial_id,
        phase="search",
        state=state,  # type: ignore[arg-type]
        attempt=1,
        started_at="2025-01-02T03:04:05+00:00",
        finished_at="2025-01-02T04:04:05+00:00",
        genotype=[[["skip_connect", 0, 2]], [["skip_connect", 0, 2]]] if state == "done" else None,
    )
    assert store.begin(search.trial_id).finish(result)


def test_what_is_missing_is_counted_against_the_plan(lab: Lab) -> None:
    lab.store.keep_grid(Grid.from_dict(GRID).to_json())
    settle(lab.store, 0, "done")
    settle(lab.store, 1, "failed")
    (grid,) = kept_grids(lab.store)
    assert grid.name == "small <b>"
    assert shortfalls(grid.counts) == [
        "search, darts, exp mu=0.1: 3 planned, 1 done, 1 failed, 1 not done yet",
        "retrain, darts, exp mu=0.1: 3 planned, 0 done, 2 not done yet, "
        "1 impossible because searches failed",
    ]
    assert grid.counts["planned"].sum() == len(plan(Grid.from_dict(GRID)))
    scheduler = replay(plan(Grid.from_dict(GRID)), lab.store)
    assert grid.counts["done"].sum() == sum(state == "done" for _, state in scheduler.states())


def test_a_grid_that_cannot_be_read_any_more_is_said(lab: Lab, tmp_path: Path) -> None:
    lab.store.keep_grid('{"name": "old", "data": {"dataset": "beans"}}')
    (grid,) = kept_grids(lab.store)
    assert grid.counts.empty
    assert "beans" in grid.problem
    assert "beans" in Page(write_report(lab.store, tmp_path / "out")).text
