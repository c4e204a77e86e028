"""The demonstration: a head of known T2*, written as DICOM, mapped like any scan and compared with the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..io.dicom.write import write_dicom
from ..io.maps import Maps
from ..io.storage.result_folder import recorded_files, result_folder
from ..mapping.t2star import T2star
from ..phantoms import REGIONS, Phantom, gradient_echo_images, head_slice
from ..quantities import Status
from .provenance import Clock
from .run import JobResult, fill_folder, in_words

ECHO_TIMES = np.linspace(2e-3, 40e-3, 11)  # s
SNR = 100.0
GAIN = 3000.0  # a.u.; a 12-bit scanner's usual brightness
IMAGES = "dicom"  # subfolder of the images


def run_demo(
    out: Path, *, size: int = 128, overwrite: bool = False, timings: Mapping[str, float] | None = None, **how: Any
) -> JobResult:
    """Writes the reference object as DICOM files into `out/dicom`, maps them into `out` and compares with the truth.

    The rest is as with `run_job`; `regions` of the result has a row per tissue.
    """
    clock = Clock(dict(timings or {}))
    earlier = recorded_files(out)
    if any(path.relative_to(out) not in earlier for path in (out / IMAGES).glob("*")):  # scans of a user, say
        others = "holds files that are not of an earlier demonstration; choose another folder."
        raise OutputError(f"{out / IMAGES}: {others}")
    with result_folder(out, overwrite=overwrite) as folder:
        with clock("simulating"):
            phantom = head_slice(size)
            images = gradient_echo_images(phantom, ECHO_TIMES, snr=SNR, gain=GAIN, rng=np.random.default_rng(2024))
            (folder / IMAGES).mkdir()
            write_dicom(folder / IMAGES, images, ECHO_TIMES, phantom.affine, "reference object, multi-echo GRE")
        result = fill_folder(
            folder, T2star(mask="auto"), [folder / IMAGES], timings=clock.seconds,
            compare=lambda maps: region_errors(maps, phantom), **how,
        )  # fmt: skip
    result.out = out
    return result


def region_errors(maps: Maps, phantom: Phantom) -> list[dict[str, object]]:
    """Per tissue: true and median T2* [s], the error of the median and the median error of a voxel, as fractions."""
    rows: list[dict[str, object]] = []
    for label, region in REGIONS.items():
        inside = (phantom.labels == label) & (maps["status"] == Status.OK)
        relative = maps["T2starmap"][inside].astype(np.float64) / region.t2star - 1
        rows.append(
            {
                "region": region.name,
                "voxels": int(inside.sum()),
                "true_T2star_s": region.t2star,
                "median_T2star_s": region.t2star * (1 + float(np.median(relative))),
                "error_of_median": float(np.median(relative)),
                "median_abs_error": float(np.median(np.abs(relative))),
            }
        )
    return rows


def compare_with_truth(maps: Maps, phantom: Phantom) -> list[dict[str, object]]:
    """`region_errors` for people: T2* in ms, errors in %."""
    return [dict(row) for row in in_words(region_errors(maps, phantom))]
