"""Tables of every verb on a terminal of any width: no number and no word is broken, nothing is left out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from gensdk.cli import output
from gensdk.cli.main import cli
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.host.text_table import cell_width, table_text, wrapped
from gensdk_runtime.plan.costs import Choice
from support.cost_tables import table_for
from support.step_bundle import write_step_bundle

WIDTHS = (20, 40, 60, 80, 120)
BENCH = ["--backend", "fake", "--warmup", "0", "--duration", "0.02", "--num-inference-steps", "2"]
VERBS = {
    "verify": ["verify", "digits-ddpm", "--precision", "fp32"],
    "verify a model with flips": ["verify", "digits-pixelcnn", "--precision", "fp32"],
    "env": ["env"],
    "list": ["list"],
    "inspect": ["inspect", "digits-ddpm"],
}


def words(text: str) -> Counter[str]:
    return Counter(word for word in text.split() if set(word) != {"─"})


def shown(arguments: list[str], width: int | None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(output, "terminal_width", lambda: width)
    monkeypatch.setattr("gensdk.cli.bench.terminal_width", lambda: width)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def check(plain: str, narrow: str, width: int) -> None:
    """All words are there; a line that is too long is one that has no place to break it."""
    lost = set(words(plain)) - set(words(narrow)) - {word.rstrip(":") for word in narrow.split()}
    assert not lost, f"{lost} at width {width}"
    for line in narrow.splitlines():
        own = re.sub(r"^\s*(?:[^:]{0,40}: )?", "", line)
        assert cell_width(line) <= width or len(own.split()) <= 1 or len(line.split()) <= 2, line


@pytest.mark.parametrize("verb", VERBS)
def test_no_number_is_broken_at_any_width(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shown(VERBS[verb], None, monkeypatch)
    tables = [line for line in plain.splitlines() if line.startswith("  ")]
    assert tables
    for width in (40, 80):
        narrow = shown(VERBS[verb], width, monkeypatch)
        for number in re.findall(r"(?<!\S)\d\S*(?!\S)", "\n".join(tables)):
            assert number in narrow.split(), f"{number} at width {width}"


def test_the_report_of_a_measurement(tmp_path: Path) -> None:
    from gensdk_runtime.bench import suite
    from gensdk_runtime.bench.latency_report import BenchSettings
    from gensdk_runtime.bench.table import report_text

    bundle = write_step_bundle(tmp_path / "tiny.gsdk")
    how = BenchSettings(warmup_ms=0, duration_s=0.01, runs=3, patience=1)
    report = suite.bench(bundle, against=bundle, backends=["fake"], settings=how)
    plain = report_text(report)
    for width in WIDTHS:  # "why" is the name of a column that may be empty, and a list leaves out what is
        check(plain, report_text(report, width=width) + " why", width)


def test_the_table_of_tune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gensdk.cli.tune import print_costs

    with Bundle.open("digits-ddpm") as bundle:
        assert bundle.manifest.model.max_batch
    table = table_for([Choice(threads=1), Choice(threads=1, workers=2), Choice(backend="openvino", threads=16)])
    found = {}
    for width in (None, *WIDTHS):
        monkeypatch.setattr(output, "terminal_width", lambda width=width: width)
        print_costs("a model", SimpleNamespace(measured=table, kept=table))  # type: ignore[arg-type]
        found[width] = capsys.readouterr().out
    for width in WIDTHS:
        check(found[None], found[width], width)


text = st.text("ab1.e-% 中é", max_size=30)


@given(
    rows=st.lists(st.tuples(text, text, text), min_size=1, max_size=5),
    width=st.one_of(st.none(), st.integers(0, 100)),
    title=text,
)
def test_every_word_of_every_cell_is_there_whole(rows, width, title) -> None:
    shown = table_text(("first", "a second", "third"), rows, title=title, width=width)
    assert not words(" ".join(" ".join(row) for row in rows)) - words(shown)
    assert all(line == line.rstrip() for line in shown.splitlines())


@given(text=text, width=st.integers(1, 40))
@example(text="  ", width=1)
def test_wrapping_keeps_the_words_and_the_width(text: str, width: int) -> None:
    lines = list(wrapped(text, width))
    assert " ".join(lines).split() == text.split()
    assert all(cell_width(line) <= width or len(line.split()) == 1 for line in lines)


def test_what_is_compared_stands_beside_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the difference in the output's own unit, which a bound for scaled differences says nothing about."""
    plain = shown(["verify", "digits-ddpm"], None, monkeypatch)
    heading = re.split(r"\s{2,}", plain.splitlines()[0].strip())
    differs, allowed = heading.index("differs by"), heading.index("allowed")
    rows = [re.split(r"\s{2,}", line.strip()) for line in plain.splitlines()[2:] if line.startswith("  ")]
    judged = [row for row in rows if row[allowed] != "-"]
    assert judged
    for row in judged:
        assert float(row[differs]) <= float(row[allowed])
        assert row[-1] == "ok"


def test_an_export_says_the_bound_of_what_it_compares() -> None:
    from gensdk_export.export_report import HEADING, GraphRow, row_text
    from gensdk_runtime.proof.drift import Drift

    drift = Drift(3, 0.41, 0.009, 60.0, 0, 0, False, False, (0.009,))
    row = dict(zip(HEADING, row_text(GraphRow("g", "fp16", "torch half", 9, drift, "ok", 0.02)), strict=True))
    assert (row["differs by"], row["allowed"], row["verdict"]) == ("9.0e-03 (4.1e-01 unscaled)", "0.02", "ok")


def test_a_pipe_gets_whole_lines() -> None:
    result = CliRunner().invoke(cli, ["inspect", "digits-ddpm"])
    assert "  graph" in result.stdout
    assert all("…" not in line for line in result.stdout.splitlines())
    long = table_text(("name", "text"), [("a", "word " * 100)])
    assert len(long.splitlines()) == 3
