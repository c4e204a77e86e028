"""The report says what it was given, all of it, and asks nobody for anything."""

import base64
import dataclasses
import io
import math
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image
from reports import Page, make_report

from jaxqmri.quantities import MAP_KINDS, MapKind
from jaxqmri.report.colours import colours_of, displayed, log_remap
from jaxqmri.report.page import VoxelFits, participant_page, report_html
from jaxqmri.report.tables import quartiles, shares


@pytest.fixture(scope="module")
def usual():
    """A report, and its text."""
    report = make_report(np.random.default_rng(1))
    return report, Page(report_html(report)).text


def test_nothing_is_fetched(rng):
    report = make_report(rng, 3, images=rng.random((12, 10, 3, 3)))
    page = Page(report_html(report))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "video", "audio", "base", "form", "svg"}
    for tag, attributes in page.elements:
        assert not {"srcset", "background", "poster", "data", "action", "ping"} & set(attributes)
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert "href" not in attributes or tag == "a"
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|expression", page.styles)
    policy = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_text_from_outside_is_never_markup(rng):
    attack = "<script>alert('x')</script><img src=x onerror=y> {0} &amp; \"quoted\""
    report = make_report(
        rng,
        title=attack,
        facts={attack: attack},
        regions=[{attack: attack}],
        timings={attack: 1.0},
        warnings=[attack],
        command=attack,
        versions={attack: attack},
        voxel_fits=VoxelFits(np.ones((1, 3)), np.array([0.0]), np.ones((1, 1)), [attack]),
    )
    html = report_html(report)
    page = Page(html)
    assert "<script" not in html
    assert all(a.get("src", "data:").startswith("data:") for _, a in page.elements)
    # heading, title; fact, region, version with key and value; warning, command, step, fit
    assert page.text.count(attack) == 2 + 3 * 2 + 4


def test_text_from_outside_is_never_markup_on_the_page_of_a_participant(tmp_path):
    attack = "<script>alert('x')</script><img src=x onerror=y> {0} {{ 0 }} &amp; \"quoted\""
    row = {"map": "T2starmap", "median_s": None, "n_fitted": 0, "n_voxels": attack}
    record = {"outputs": [f'"onclick="{attack}.html'], "row": row, "warnings": [attack]}
    records = {attack: record, f"good {attack}": record}
    html = participant_page(attack, records, {attack: attack, f"bad {attack}": attack}, tmp_path)
    page = Page(html)
    assert "<script" not in html
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    # heading, title; three series, four warnings, two numbers of voxels
    assert page.text.count(attack) == 2 + 3 + 4 + 2


def test_every_picture_is_a_png_with_words_for_those_who_cannot_see_it(rng):
    report = make_report(rng, 4, images=rng.random((12, 10, 4, 3)))
    images = [a for tag, a in Page(report_html(report)).elements if tag == "img"]
    assert [a["alt"] for a in images] == [
        "Map of S0 [a.u.], slice 1 of 4",
        "Map of T2* [ms], slice 1 of 4",
        "Map of relative error [%], slice 1 of 4",
        "All slices of the map of T2* [ms]",
        "Histogram of T2* [ms]",
        "Histogram of relative error [%]",
        "Histogram of T2* standard error [ms]",
        "Status of the voxels of slice 1",
        "Measured signal (points) and fitted curve of grey & white",
        *[
            f"{plane} cuts through the map of {title}"
            for title in ("S0 [a.u.]", "T2* [ms]", "T2* standard error [ms]", "relative error [%]")
            for plane in ("Axial", "Coronal", "Sagittal")
        ],
        "The measured images of slice 1: 3 echoes",
    ]
    for attributes in images:
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert data.startswith(b"\x89PNG")
        assert data.endswith(b"IEND\xaeB`\x82")


def test_one_slice_needs_no_mosaic(usual):
    assert "All slices" not in usual[1]
    assert "Mosaics" not in usual[1]


def test_headline_is_the_median_and_quartiles_of_voxels_that_are_ok():
    values = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.9, np.nan, 0.0])
    status = np.array([0, 0, 0, 0, 0, 3, 0, 0])
    found = quartiles(displayed(values, MAP_KINDS["T2starmap"], status))
    assert found.count == 5
    np.testing.assert_allclose(found[:3], [20.0, 30.0, 40.0], rtol=1e-6)  # ms


def test_headline_numbers_are_on_the_page(usual):
    report, text = usual
    valid = 1e3 * report.maps["T2starmap"][report.maps["status"] == 0]
    lower, median, upper = np.percentile(valid, [25, 50, 75])
    assert f"T2* {median:.1f} ms {lower:.1f} to {upper:.1f}" in text
    assert "S0 900 a.u. 900 to 900" in text
    assert "relative error 1.30 %" in text


def rounded(value):
    """To three significant digits, of large numbers to a whole one: as far as the report goes."""
    return round(value, max(2 - math.floor(math.log10(value)), 0))


def test_the_table_holds_median_quartiles_and_iqr_of_every_map_within_the_mask(rng):
    report = make_report(rng, maps={**make_report(rng).maps, "S0map": rng.uniform(500, 4000, (12, 10, 1))})
    table = re.search(r'aria-label="Values of the maps".*?</table>', report_html(report), re.S)
    assert table
    rows = [[unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", r)] for r in table[0].split("<tr>")[2:]]
    factors = {"S0map": 1, "T2starmap": 1e3, "T2starmap_stderr": 1e3, "residual": 100}
    titles = ["S0 [a.u.]", "T2* [ms]", "T2* standard error [ms]", "relative error [%]"]
    assert [row[0] for row in rows] == titles
    for row, (name, factor) in zip(rows, factors.items(), strict=True):
        values = factor * np.asarray(report.maps[name], np.float64)[report.maps["status"] == 0]
        lower, median, upper = np.percentile(values, [25, 50, 75])
        shown = [float(text.replace("\u2009", "")) for text in row[1:]]
        wanted = [rounded(x) if x > 1e-9 else 0.0 for x in (median, lower, upper, upper - lower)]
        assert shown == [*wanted, 89]


def test_shares_add_up_to_exactly_100_and_round_each_to_its_nearest_tenth_or_its_neighbour(rng):
    for _ in range(200):
        counts = rng.integers(0, 10 ** rng.integers(1, 7), rng.integers(1, 8)).tolist()
        if sum(counts) == 0:
            continue
        percent = shares(counts)
        assert sum(round(10 * p) for p in percent) == 1000
        np.testing.assert_allclose(percent, 100 * np.array(counts) / sum(counts), atol=0.1)
    assert shares([1, 1, 1]) == [33.4, 33.3, 33.3]
    assert shares([0, 0]) == [0.0, 0.0]


def test_status_table_counts_every_voxel_and_says_what_each_code_means(usual):
    _, text = usual
    rows = re.findall(r"(OK|NOT_CONVERGED|MASKED) (.+?) (\d+) (\d+\.\d) %", text)
    rows = [(name, count, share, meaning) for name, meaning, count, share in rows]
    assert [(name, int(count)) for name, count, _, _ in rows] == [("OK", 89), ("NOT_CONVERGED", 1), ("MASKED", 30)]
    assert sum(round(10 * float(share)) for _, _, share, _ in rows) == 1000
    assert [meaning.strip() for *_, meaning in rows] == [
        "fitted",
        "the solver did not reach a minimum (Adam and Optax: is 10 % or more away from one)",
        "outside the mask, not fitted",
    ]


def test_the_page_repeats_what_it_was_told(usual):
    report, text = usual
    for warning in report.warnings:
        assert warning in text
    assert report.command in text
    assert "Echo times (3) 2, 5.8, 40.1 ms" in text
    assert "Series multi-echo GRE" in text
    assert "numpy 2.0.2" in text
    assert "fitting 0.02 s" in text
    assert "grey matter 0.1234" in text


def test_models_are_compared_side_by_side_with_a_word_on_each_number(rng, usual):
    rows = [{"model": "EPG <1>", "voxels": 7, "share better [%]": 99.3}, {"model": "mono", "voxels": 7}]
    text = Page(report_html(make_report(rng, models=rows))).text
    assert "model EPG <1> mono voxels 7 7 share better [%] 99.3 Medians" in text
    assert "share better: voxels that the model fits better." in text
    assert "Models compared" not in usual[1]


def test_b1_is_shown_beside_the_relaxation_time(rng):
    report = make_report(rng)
    shape = report.maps["residual"].shape
    maps = {"M0map": np.full(shape, 900.0), "T2map": np.full(shape, 0.05), "TB1map": np.full(shape, 0.9)}
    page = Page(report_html(dataclasses.replace(report, maps={"residual": np.full(shape, 0.01), **maps})))
    pictures = [a["alt"] for tag, a in page.elements if tag == "img"]
    assert pictures[:4] == [
        f"Map of {title}, slice 0 of 1" for title in ("M0 [a.u.]", "T2 [ms]", "B1", "relative error [%]")
    ]
    assert "Histogram of B1" in pictures
    assert "B1 0.900" in page.text


def test_a_new_map_needs_no_more_than_its_row_of_quantities(rng, monkeypatch):
    monkeypatch.setitem(MAP_KINDS, "T0map", MapKind("s", "another time", "T0", "time", "ms", 1e3, "navia", (0.0, 10.0)))
    maps = {"T0map": np.full((4, 4, 2), 0.007), "T0map_stderr": np.full((4, 4, 2), 0.001)}
    page = Page(report_html(make_report(rng, maps=maps, voxel_fits=None)))
    pictures = [a["alt"] for tag, a in page.elements if tag == "img"]
    assert {"Map of T0 [ms], slice 0 of 2", "All slices of the map of T0 [ms]", "Histogram of T0 [ms]"} <= set(pictures)
    assert "T0 7.00 ms" in page.text


def test_empty_parts_leave_no_empty_headings(rng):
    report = make_report(rng, facts={}, regions=(), timings={}, warnings=(), command="", versions={}, voxel_fits=None)
    html = report_html(report)
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", html)
    assert headings == ["Maps", "Values", "Distribution", "Voxels", "Acquisition"]
    contents = re.findall(r'<li><a href="#(.*?)">(.*?)</a></li>', html)
    assert [heading for _, heading in contents] == headings
    assert all(f'<section id="{name}"' in html for name, _ in contents)


def test_a_map_without_any_value_still_gets_its_report(rng):
    report = make_report(rng)
    empty = {name: np.full((12, 10, 1), np.nan) for name in ("S0map", "T2starmap", "residual")}
    report = dataclasses.replace(report, maps={**empty, "status": np.ones((12, 10, 1), dtype=np.int16)})
    text = Page(report_html(report)).text
    assert text.count("no valid voxel") == 3
    assert "NO_SIGNAL every measurement is zero, nothing to fit 120 100.0 %" in text


def test_equal_input_gives_the_equal_page(rng):
    report = make_report(rng)
    assert report_html(report) == report_html(report)


def test_a_report_needs_a_map(rng):
    report = make_report(rng)
    with pytest.raises(ValueError, match="at least one map"):
        report_html(dataclasses.replace(report, maps={"status": report.maps["status"]}))


def test_a_report_of_a_whole_head_can_be_mailed_and_its_colours_are_those_of_the_maps(rng):
    """256 x 192 x 36 voxels with noise everywhere, the worst there is to compress: below 3 MB."""
    shape = (256, 192, 36)
    t2 = rng.uniform(0.02, 0.15, shape).astype(np.float32)
    report = make_report(
        rng,
        maps={"T2map": t2, "R2map": 1 / t2, "status": np.zeros(shape, np.uint8)},
        images=rng.random((*shape, 2), dtype=np.float32),
        values=[10e-3, 40e-3],
        affine=np.diag([-1.0, 1.0, 4.0, 1.0]),
        voxel_fits=None,
    )
    html = report_html(report)
    assert len(html.encode()) < 3e6
    png = re.search(r'base64,([^"]+)" alt="All slices', html)
    assert png
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png[1]))).convert("RGB"), int)
    height, width = ((shown.sum(axis=2) == 0).all(axis=axis).argmax() for axis in (1, 0))  # the first gaps
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(int) for n, of in ((height, 192), (width, 256)))
    values = 1e3 * t2[:, ::-1, 0].T[rows][:, columns]
    exact = colours_of(MAP_KINDS["T2map"])(log_remap(values, 0.0, 200.0), bytes=True)[..., :3]
    off = np.abs(shown[:height, :width] - exact)
    assert off.max() <= 4
    assert off.mean() < 1, "of 255; neighbours in the table of colours differ by 2"
