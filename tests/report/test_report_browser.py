"""The report in a real browser: it asks nobody for anything and fits on a telephone."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from reports import make_report

from jaxqmri.report.page import report_html

pytestmark = pytest.mark.slow
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TELEPHONE = 390  # CSS pixels
# A frame around the page, since the page itself forbids scripts.
FRAME = """<!DOCTYPE html><body><script>
const frames = {};
function load(width, done) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "800px"; frame.style.border = 0;
  frame.addEventListener("load", () => {
    const view = frame.contentWindow, page = frame.contentDocument;
    const wide = [...page.querySelectorAll("*")].filter(
      (e) => !e.closest(".scroll") && e.getBoundingClientRect().right > width + 0.5);
    frames[width] = {
      width: page.documentElement.scrollWidth,
      wide: wide.map((e) => e.outerHTML.slice(0, 80)),
      scrolling: [...page.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).map(
        (e) => e.getAttribute("aria-label")),
      broken: [...page.images].filter((i) => !i.complete || !i.naturalWidth).length,
      unnamed: [...page.images].filter((i) => !i.alt).length,
      fetched: view.performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
      headings: [...page.querySelectorAll("h1, h2, h3")].map((h) => h.tagName),
    };
    done();
  });
  frame.srcdoc = PAGE;
  document.body.append(frame);
}
load(390, () => load(1200, () => {
  const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(frames);
  document.body.replaceChildren(out);
}));
</script></body>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the browser makes of a report with long words, at the widths of a telephone and of a desk."""
    if BROWSER is None:
        pytest.skip("no chromium or chrome here; install Debian's package chromium to look at the report")
    folder, rng = tmp_path_factory.mktemp("browser"), np.random.default_rng(1)
    rows = [{"model": name, "voxels": 53744, "rms misfit to mono [%]": 64.16} for name in ("EPG, B1 given", "mono-exp")]
    report = make_report(
        rng, 4, images=rng.random((12, 10, 4, 3)), models=rows, warnings=["w" * 300], command="jaxqmri " + "x" * 300
    )
    page = json.dumps(report_html(report)).replace("</", "<\\/")  # a script ends where it says </script
    (folder / "frame.html").write_text(FRAME.replace("PAGE", page), encoding="utf-8")
    log = folder / "net.json"
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=10000",
            "--dump-dom", (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(unescape(found[1])), log.read_text(encoding="utf-8")


def test_nothing_is_asked_for_beyond_the_page(seen):
    frames, log = seen
    assert all(frame["fetched"] == [] for frame in frames.values())
    assert "doi.org" not in "".join(re.findall(r'"url":"([^"]*)"', log)), "links are followed by people only"


@pytest.mark.parametrize("width", [TELEPHONE, 1200])
def test_nothing_sticks_out_at_the_side(seen, width):
    frame = seen[0][str(width)]
    assert frame["wide"] == []
    assert frame["width"] <= width
    assert frame["scrolling"] == [], "tables fit too"


def test_every_picture_is_drawn_and_described(seen):
    for frame in seen[0].values():
        assert (frame["broken"], frame["unnamed"]) == (0, 0)


def test_headings_are_an_outline(seen):
    levels = [int(tag[1]) for tag in seen[0]["1200"]["headings"]]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1, "no level is left out"
