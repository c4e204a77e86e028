"""The demonstration: a head with known T2*, written as DICOM, mapped like any scan and held against the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .estimation.fit import Status
from .io.atomic import output_errors
from .io.dicom_write import write_dicom
from .io.maps import Maps, check_output_folder
from .jobs import JobResult, run_t2star
from .phantoms import REGIONS, Phantom, gradient_echo_images, head_slice

ECHO_TIMES = np.linspace(2e-3, 40e-3, 11)  # s
SNR = 100.0
GAIN = 3000.0  # a.u.; a 12-bit scanner's usual brightness


def run_demo(
    out: Path,
    *,
    size: int = 128,
    overwrite: bool = False,
    report: bool = True,
    quiet: bool = True,
    timings: Mapping[str, float] | None = None,
) -> JobResult:
    """Writes the reference object as DICOM files into `out/dicom`, maps them into `out` and compares with the truth.

    Args:
        out: folder for everything; it may be there if it is empty.
        size: matrix size.
        overwrite: replace an earlier demonstration.
        report, quiet, timings: see `run_t2star`.

    Returns:
        The job's result; `regions` has a row per tissue.

    Raises:
        OutputError: `out` cannot take the results.
    """
    check_output_folder(out, overwrite=overwrite)
    phantom = head_slice(size)
    dicom_folder = out / "dicom"
    with output_errors(dicom_folder):
        dicom_folder.mkdir(exist_ok=True)
    images = gradient_echo_images(phantom, ECHO_TIMES, snr=SNR, gain=GAIN, rng=np.random.default_rng(2024))
    write_dicom(dicom_folder, images, ECHO_TIMES, phantom.affine, "reference object, multi-echo GRE")
    return run_t2star(
        [dicom_folder],
        out,
        mask="auto",
        overwrite=True,
        report=report,
        quiet=quiet,
        timings=timings,
        compare=lambda maps: compare_with_truth(maps, phantom),
    )


def compare_with_truth(maps: Maps, phantom: Phantom) -> list[dict[str, object]]:
    """Per tissue: true and median T2* [ms], the error of the median and the median error of a voxel [%].

    Args:
        maps: `T2starmap` and `status` on the grid of the phantom.
        phantom: the truth.
    """
    rows: list[dict[str, object]] = []
    for label, region in REGIONS.items():
        inside = (phantom.labels == label) & (maps["status"] == Status.OK)
        t2star = maps["T2starmap"][inside]
        relative = t2star / region.t2star - 1
        rows.append(
            {
                "region": region.name,
                "voxels": int(inside.sum()),
                "true T2* [ms]": round(1e3 * region.t2star, 2),
                "median T2* [ms]": round(1e3 * float(np.median(t2star)), 2),
                "error of median [%]": round(100 * float(np.median(relative)), 2),
                "median |error| [%]": round(100 * float(np.median(np.abs(relative))), 2),
            }
        )
    return rows
