"""Tables to paste keep their numbers and survive hostile names."""

from __future__ import annotations

import csv
import io

import pytest
from typer.testing import CliRunner

from nas_sweeps.choices import TABLE_FORMATS
from nas_sweeps.cli import app
from nas_sweeps.report.tables import table_text
from nas_sweeps.store import Origin
from nas_sweeps.tables import Frames, load
from tests.report.lab import BALANCE, EXP, HOSTILE, Lab


def test_text_lines_up(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    lab.chain("darts", 1, EXP, 0.625)
    lab.chain("fairdarts", 0, BALANCE, 0.75)
    assert table_text(load(lab.store)) == (
        "method     balance    exp mu=0.1\n"
        "---------  ---------  ----------------\n"
        "darts      -          56.25 ± 8.84 (2)\n"
        "fairdarts  75.00 (1)  -\n"
    )


def test_searches_have_a_table_of_their_own(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    lines = table_text(load(lab.store), phase="search").splitlines()
    assert lines[2].split()[0] == "darts"
    done = CliRunner().invoke(app, ["table", str(lab.store), "--phase", "search"])
    assert "accuracy_balanced of search trials" in done.stdout
    with pytest.raises(ValueError, match="did you mean search"):
        table_text(load(lab.store), phase="serch")


def test_numbers_that_are_no_fractions_are_not_percent(lab: Lab) -> None:
    lab.chain("darts", 0, EXP, 0.5)
    text = table_text(load(lab.store), columns=(), value="num_params", format="markdown")
    assert text == "| method | all |\n| --- | --- |\n| darts | 16000 (1) |\n"


def test_csv_keeps_every_digit_and_every_name(frames: Frames) -> None:
    lines = list(csv.reader(io.StringIO(table_text(frames, format="csv"))))
    assert lines[0][:4] == ["method", "balance mean", "balance sd", "balance n"]
    found = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert float(found["darts"]["exp mu=0.1 mean"]) == (0.5 + 0.5625) / 2
    assert float(found[HOSTILE]["step mu=0.01 mean"]) == 0.25
    assert found[HOSTILE]["step mu=0.01 sd"] == ""


def test_markdown_cannot_be_broken_by_a_name(frames: Frames) -> None:
    lines = table_text(frames, format="markdown").splitlines()
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1, lines
    assert "\\<script\\>" in "".join(lines)


def test_latex_cannot_be_broken_by_a_name(lab: Lab) -> None:
    lab.retrain(Origin(method='$_{}|\\%#&^~"<\n>'), accuracies=(0.5,))
    text = table_text(load(lab.store), format="latex")
    assert (
        r"\$\_\{\}\textbar{}\textbackslash{}\%\#\&\textasciicircum{}\textasciitilde{}"
        r"\textquotedbl{}\textless{} \textgreater{} & 50.00 (1) \\"
    ) in text.splitlines()
    assert text.count("\n") == 7


@pytest.mark.parametrize("form", TABLE_FORMATS)
def test_an_empty_store_gives_headings_only(form: str, lab: Lab) -> None:
    text = table_text(load(lab.store), format=form)  # type: ignore[arg-type]
    assert "method" in text
    assert "(" not in text


def test_mistakes_are_named(frames: Frames) -> None:
    with pytest.raises(ValueError, match="choose from text, markdown, latex, csv"):
        table_text(frames, format="html")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no column 'colour'"):
        table_text(frames, rows=["colour"])


def test_what_sets_methods_apart_is_said_beside_a_table_to_paste(sweep: Lab) -> None:
    done = CliRunner().invoke(app, ["table", str(sweep.store), "--format", "csv"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == table_text(load(sweep.store), format="csv")
    assert done.stderr.startswith("pre-training: ")
    assert "darts: none; fairdarts: none; ssf_nas: barlow_finetune" in done.stderr
