"""Reports and their tables: complete, honest about failures, one self-contained file."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_runs import empty_telemetry, fake_ablation, fake_profile, fake_run, fake_telemetry

from lnjax.analysis.findings import findings
from lnjax.analysis.records import RunRecord
from lnjax.analysis.report import write_report, write_run_report
from lnjax.analysis.summary import (
    best_run,
    block_gradient,
    gradient_ratio,
    learning_rate_table,
    power_law,
    stream_growth,
    stream_profile,
    summary_table,
)


class _Page(HTMLParser):
    """Collects the tags, ids and visible words of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u2060", ""))

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    write_report(
        directory,
        fake_ablation(),
        title="Warm-up & placement",
        profile=fake_profile(),
        provenance={"command": "python -m x", "versions": {"jax": "0.10.2"}, "date": "2025-01-31"},
        references={"unigram entropy": 3.35},
    )
    return directory


def test_the_report_is_one_self_contained_valid_page(report):
    text = (report / "report.html").read_text()
    page = _Page(text)
    assert page.open == [], "an element is not closed"
    assert not page.named("script") and "http" not in text and "@import" not in text
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)), "inline figures share ids"
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    assert used and used <= set(ids)
    assert page.named("html")[0]["lang"] == "en"
    assert any(attrs.get("name") == "viewport" for attrs in page.named("meta"))
    assert "<title>Warm-up &amp; placement</title>" in text
    assert "@media print" in text and "break-inside: avoid" in text


def test_every_figure_is_described_and_also_a_file(report):
    page = _Page((report / "report.html").read_text())
    plots = [attrs for attrs in page.named("svg") if attrs["class"] == "plot"]
    pictures = sorted(path.name for path in (report / "figures").glob("*.png"))
    # two losses, the learning rate, a map per label, two streams, four of the untrained models
    assert len(plots) == len(pictures) == len(page.named("figcaption")) == 3 + 4 + 2 + 4
    for attrs in plots:
        assert attrs["role"] == "img" and len(attrs["aria-label"]) > 40
        assert attrs["viewbox"].startswith("0 0 ") and "width" not in attrs
    for number in range(1, len(plots) + 1):
        assert f"Figure {number}." in page.text


def test_tables_state_every_divergence(report):
    text = _Page((report / "report.html").read_text()).text
    for run in fake_ablation():
        if run.status == "diverged":
            assert f"diverged at step {run.step} (loss is not finite)" in text
    assert "jax 0.10.2" in text and "python -m x" in text


def test_reports_are_reproducible(report, tmp_path):
    runs = [fake_run(), fake_run("post_ln", diverge_at=90)]
    first = write_report(tmp_path / "a", runs).read_bytes()
    assert write_report(tmp_path / "b", runs).read_bytes() == first


def test_a_second_report_leaves_no_figure_of_the_first(tmp_path):
    write_report(tmp_path, [fake_run("pre_ln"), fake_run("post_ln")])
    mine = tmp_path / "figures" / "mine.png"
    mine.touch()
    write_report(tmp_path, [fake_run("pre_ln")])
    assert not (tmp_path / "figures" / "gradient-map-post-ln.png").exists()
    assert (tmp_path / "figures" / "gradient-map-pre-ln.png").exists() and mine.exists()


def _without(run, *names):
    return replace(run, telemetry=run.telemetry.drop_vars(names))


def _nowhere_finite():
    data = fake_telemetry(steps=20)
    return data.map(lambda x: x * np.nan if x.dtype.kind == "f" else x)


_ODD = {
    "one run": [fake_run()],
    "diverged at step 1": [fake_run(), fake_run("post_ln", diverge_at=1)],
    "only a run that diverged at once": [fake_run("post_ln", diverge_at=0)],
    "no evaluation": [fake_run(evaluation=False), fake_run("post_ln", evaluation=False)],
    "no telemetry": [fake_run(), RunRecord("post_ln", "post_ln", 1e-3)],
    "no record": [replace(fake_run(), telemetry=empty_telemetry(), result=None)],
    "nothing finite": [replace(fake_run(), telemetry=_nowhere_finite(), result={})],
    "no gradients, no stream": [_without(fake_run(), "gradient_l2", "activation_rms")],
    "interrupted": [fake_run(status="interrupted"), fake_run("post_ln")],
    "one layer": [fake_run(depth=1)],
    "no rate": [fake_run(rate=0.0)],
}
_ODD["nothing finite"] = [
    replace(run, result={"status": "diverged", "step": 1}) for run in _ODD["nothing finite"]
]


@pytest.mark.parametrize("case", _ODD)
def test_odd_runs_still_make_a_report(case, tmp_path):
    page = _Page(write_report(tmp_path, _ODD[case]).read_text())
    assert "What to read here" in page.text and not re.search(r"\bnan\b", page.text)
    if case in ("no telemetry", "no record", "no evaluation", "nothing finite"):
        assert "Not shown, because the runs recorded no data" in page.text
    one = _Page(write_run_report(tmp_path / "one", _ODD[case][-1]).read_text())
    assert one.open == [] and not re.search(r"\bnan\b", one.text)


def test_a_single_run_has_the_same_figures(tmp_path):
    run = fake_run("post_ln", diverge_at=90)
    page = _Page(write_run_report(tmp_path, run, provenance={"commit": "0123abc"}).read_text())
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"loss", "gradient-map-post-ln", "stream", "backward-stream"}
    assert len(page.named("svg")) == 4
    assert "The run diverged at step 90 (loss is not finite)." in page.text


def test_text_from_outside_is_escaped(tmp_path):
    label = 'a<script>alert("x")</script>&'
    text = write_report(tmp_path, [fake_run(label)], title="<b>", provenance={"<i>": "</dd>"})
    page = _Page(text.read_text())
    assert not page.named("script") and not page.named("i") and label in page.text


def test_runs_may_be_mappings(tmp_path):
    run = fake_run()
    assert write_report(tmp_path / "a", [vars(run)]).read_bytes() == (
        write_report(tmp_path / "b", [run]).read_bytes()
    )


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path, [])
    with pytest.raises(ValueError, match="lacks placement, learning_rate"):
        write_report(tmp_path, [{"label": "pre_ln"}])
    with pytest.raises(ValueError, match="must be one of finished, diverged, interrupted"):
        fake_run(status="exploded")
    with pytest.raises(ValueError, match="at least one run"):
        best_run([])


def _with_loss(rate, seed, loss, status="finished"):
    result = {"status": status, "step": 100, "evaluation_loss": loss, "final_loss": loss}
    return RunRecord("pre_ln", "pre_ln", rate, 0, seed, result)


def test_the_best_run_is_the_median_seed_of_the_best_finished_rate():
    runs = [
        _with_loss(1e-4, 0, 2.0),
        _with_loss(1e-4, 1, 2.2),
        _with_loss(1e-4, 2, 2.1),
        _with_loss(1e-3, 0, 1.0),  # lucky: the other two seeds of this rate were lost
        _with_loss(1e-3, 1, 0.5, "diverged"),
        _with_loss(1e-3, 2, 0.5, "interrupted"),
        _with_loss(1e-2, 0, 0.1, "diverged"),
    ]
    assert (best_run(runs).learning_rate, best_run(runs).seed) == (1e-4, 2)
    row = summary_table(runs).loc["pre_ln"]
    assert row["held_out_loss"] == 2.1 and (row["loss_low"], row["loss_high"]) == (2.0, 2.2)
    assert list(row[["runs", "finished", "diverged", "interrupted", "seeds"]]) == [7, 4, 2, 1, 3]
    cells = learning_rate_table(runs).loc["pre_ln"]
    assert cells[1e-4] == "2.100 (2.000–2.200)"
    assert cells[1e-3] == ("1.000; 1 of 3 diverged at step 100; 1 of 3 interrupted at step 100")
    assert cells[1e-2] == "diverged at step 100"


def test_a_label_without_a_finished_run_has_no_loss():
    table = summary_table([_with_loss(1e-3, 0, 1.0), fake_run("post_ln", diverge_at=50)])
    assert np.isnan(table.loc["post_ln", "held_out_loss"])
    assert np.isnan(table.loc["post_ln", "best_learning_rate"])
    assert table.index.tolist() == ["pre_ln", "post_ln"]


def test_block_gradient_ignores_absent_groups_but_not_broken_ones():
    data = fake_telemetry(steps=4, depth=3)
    per_group = data["gradient_l2"].values
    expected = np.sqrt(np.nansum(per_group.astype(np.float64) ** 2, axis=2))
    np.testing.assert_allclose(block_gradient(data).values, expected, rtol=1e-6)
    per_group[2, 1, 0] = np.nan
    broken = np.isnan(block_gradient(data).values)
    assert broken[2, 1] and broken.sum() == 1


def test_ratios_use_the_last_record_before_a_breakdown():
    data = fake_telemetry("post_ln", depth=6, diverge_at=80)
    assert np.isinf(data["gradient_l2"].values[-1, 0, 0])
    norms = block_gradient(data).values
    assert gradient_ratio(data, "end") == pytest.approx(norms[-2, -1] / norms[-2, 0])
    assert gradient_ratio(data, "start") == pytest.approx(norms[0, -1] / norms[0, 0])
    with pytest.raises(Exception, match="start|middle"):
        gradient_ratio(data, "middle")


def test_stream_growth_runs_from_the_first_input_to_the_output():
    data = fake_telemetry("pre_ln", depth=3)
    depth, rms = stream_profile(data, "end")
    np.testing.assert_array_equal(depth, [0, 0.5, 1, 1.5, 2, 2.5, 3])
    stream = data["activation_rms"].sel(site="stream", layer=1, sublayer="attention").values
    assert rms[0] == stream[-1] and rms[-1] == data["output_rms"].values[-1]
    assert stream_growth(data, "end") == pytest.approx(data["output_rms"].values[-1] / stream[-1])
    shuffled = data.transpose("site", "sublayer", "layer", ...)
    assert stream_growth(shuffled, "end") == stream_growth(data, "end")


def test_power_law():
    depth = np.array([6.0, 12.0, 24.0, 48.0])
    assert power_law(depth, 3 * depth**-0.5) == pytest.approx(-0.5)
    assert power_law(depth, np.array([1.0, np.nan, 0.0, 2.0])) == pytest.approx(1 / 3)
    assert np.isnan(power_law(depth[:1], depth[:1]))
    assert np.isnan(power_law(depth, np.exp(depth))), "exponential growth is no power law"


def test_findings_follow_the_data():
    runs = fake_ablation(seeds=2)
    text = " ".join(findings(runs, fake_profile()))
    assert "Lowest held-out loss" in text and "(sandwich, learning rate 1e-3" in text
    assert "post_ln, no warm-up: " in text and "diverged" in text
    assert "pre_ln −0.50" in text and "post_ln +0.00" in text
    calm = " ".join(findings([run for run in runs if run.placement == "pre_ln"]))
    assert "diverged" not in calm and "sandwich" not in calm and "Untrained" not in calm


def test_findings_admit_what_the_runs_cannot_settle():
    one_seed = [_with_loss(1e-3, 0, 2.0), replace(_with_loss(1e-3, 0, 2.1), label="b")]
    assert any("one seed" in item for item in findings(one_seed))
    twins = [one_seed[0], replace(one_seed[0], label="b")]
    assert not any("overlap" in item for item in findings(twins)), "one seed has no range"
    close = [
        replace(_with_loss(1e-3, seed, loss), label=label)
        for label, losses in {"a": (2.0, 2.2), "b": (2.1, 2.3), "c": (2.5, 2.6)}.items()
        for seed, loss in enumerate(losses)
    ]
    assert any("range over seeds of b overlaps that of a" in item for item in findings(close))
    edge = [_with_loss(1e-4, 0, 2.2), _with_loss(1e-3, 0, 2.0)]
    assert any("highest rate tried (pre_ln)" in item for item in findings(edge))
    stuck = replace(edge[0], result={**edge[0].result, "initial_loss": 2.25})
    assert any(item.startswith("Barely learned") for item in findings([stuck]))


def test_findings_name_who_is_no_better_than_a_reference():
    runs = [_with_loss(1e-3, 0, 2.0), replace(_with_loss(1e-3, 0, 3.2), label="stuck")]
    (item,) = [text for text in findings(runs, None, {"unigram loss": 3.21}) if "unigram" in text]
    assert "stuck" in item and runs[0].label not in item
    assert not any("unigram" in text for text in findings(runs[:1], None, {"unigram loss": 3.21}))
