"""The report in a real browser: drawn, silent, and no wider than a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_runs import fake_ablation, fake_profile, fake_run

from lnjax.analysis.report import write_report, write_run_report

_BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(_BROWSER is None, reason="needs chromium or google-chrome")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_LISTEN = """<script>
var faults = [];
addEventListener("error", event => faults.push(String(event.message || event.target)), true);
for (const name of ["error", "warn"]) console[name] = (...words) => faults.push(words.join(" "));
</script>"""

_MEASURE = """<script>
addEventListener("load", () => {
  const boxes = selector => [...document.querySelectorAll(selector)].map(element => {
    const box = element.getBoundingClientRect();
    return [element.className.baseVal || element.className || element.tagName,
            box.left, box.width, box.height];
  });
  // the ink of a figure: its drawn shapes, not the frame that CSS gives it
  const ink = [...document.querySelectorAll("svg.plot")].map(svg => {
    const box = svg.getBBox();
    return [box.width, box.height, svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
  });
  const words = [...document.querySelectorAll("p, li, figcaption, h1, h2")];
  parent.postMessage({
    faults, ink,
    width: document.documentElement.scrollWidth,
    view: document.documentElement.clientWidth,
    plots: boxes("svg.plot"),
    scrollers: boxes(".scroll"),
    columns: getComputedStyle(document.querySelector(".figures")).gridTemplateColumns.split(" "),
    outside: words.filter(word => word.scrollWidth > word.clientWidth + 1).length,
  }, "*");
});
</script>"""

# Chromium has a least window width of about 500 px: a phone's width takes a frame in a page.
_WRAPPER = """<!doctype html><title>waiting</title><body style="margin:0">
<script>addEventListener("message", event => {
  document.title = "done";
  const out = document.createElement("pre");
  out.id = "out"; out.textContent = JSON.stringify(event.data);
  document.body.append(out);
});</script>
<iframe src="page.html" style="border:0;width:WIDTHpx;height:844px"></iframe>"""


def _measure(page: Path, directory: Path, width: int) -> dict:
    directory.mkdir()
    text = page.read_text().replace("<head>", f"<head>{_LISTEN}", 1)
    (directory / "page.html").write_text(text.replace("</body>", f"{_MEASURE}</body>"))
    wrapper = directory / "wrapper.html"
    wrapper.write_text(_WRAPPER.replace("WIDTH", str(width)))
    command = [_BROWSER, *_FLAGS, f"--user-data-dir={directory / 'profile'}"]
    command += [f"--window-size={max(width, 520)},900", "--virtual-time-budget=4000", "--dump-dom"]
    ran = subprocess.run(
        [*command, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', ran.stdout, re.S)
    assert found, f"the page reported nothing: {ran.stdout[-300:]} {ran.stderr[-500:]}"
    return json.loads(html.unescape(found.group(1)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("browser")
    ablation = write_report(
        directory / "ablation",
        fake_ablation(rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2), seeds=1),
        title="Does Post-LN need warm-up?",
        profile=fake_profile(),
        provenance={"command": "python -m experiments.x --config=" + "very_long_name" * 12},
    )
    single = write_run_report(directory / "single", fake_run("post_ln", diverge_at=120))
    return {"ablation": ablation, "single": single}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["ablation", "single"])
def test_report_in_a_browser(pages, tmp_path, name, width):
    seen = _measure(pages[name], tmp_path / "shown", width)
    figures = pages[name].read_text().count("<figure ")
    assert seen["faults"] == []
    assert seen["width"] <= seen["view"] <= width, "the page scrolls sideways"
    assert seen["outside"] == 0, "text reaches out of its box"
    assert len(seen["plots"]) == figures > 3
    for _, left, wide, high in seen["plots"]:
        assert wide >= 330 and high >= 150 and left >= 0 and left + wide <= width
    for wide, high, box_wide, box_high in seen["ink"]:
        assert 0.8 * box_wide < wide <= box_wide + 1 and 0.8 * box_high < high <= box_high + 1
    for _, left, wide, _ in seen["scrollers"]:
        assert left >= 0 and left + wide <= width
    assert len(seen["columns"]) == (1 if width == 390 else 3)
