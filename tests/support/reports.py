"""A small report, and what a reader finds on its page."""

import dataclasses
from html.parser import HTMLParser

import numpy as np

from jaxqmri.quantities import ECHO_TIME
from jaxqmri.report.page import ReportInput, VoxelFits

AFFINE = np.diag([-2.0, 2.0, 5.0, 1.0])


class Page(HTMLParser):
    """Elements with their attributes and the visible text of a page."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.styles, words, self._open = [], "", [], []
        self._words = words
        self.feed(html)
        self.text = " ".join(" ".join(words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._open:
            self.styles += data
        else:
            self._words.append(data)


def make_report(rng, n_slices=1, **changes):
    shape = (12, 10, n_slices)
    t2star = rng.uniform(0.02, 0.06, shape).astype(np.float32)
    status = np.zeros(shape, dtype=np.int16)
    status[:3], status[3, 0, 0] = 6, 3
    t2star[status != 0] = np.nan
    te, curve_te = np.array([2.0, 5.8, 40.1]) * 1e-3, np.linspace(0, 40e-3, 20)
    fits = VoxelFits(np.exp(-te / 30e-3)[None], curve_te, np.exp(-curve_te / 30e-3)[None], ["grey & white"])
    report = ReportInput(
        title="T2* of a test object",
        main_map="T2starmap",
        maps={
            "S0map": np.full(shape, 900.0),
            "T2starmap": t2star,
            "T2starmap_stderr": 0.02 * t2star,
            "residual": np.full(shape, 0.013),
            "status": status,
        },
        affine=AFFINE,
        axis=ECHO_TIME,
        values=te,
        facts={"Series": "multi-echo GRE"},
        regions=[{"region": "grey matter", "error [%]": 0.1234}],
        timings={"fitting": 0.0213},
        warnings=["3 files were passed over.", "echo times were <not> sorted & are now."],
        command="jaxqmri t2star 'in put' -o out",
        versions={"numpy": "2.0.2"},
        voxel_fits=fits,
    )
    return dataclasses.replace(report, **changes)
