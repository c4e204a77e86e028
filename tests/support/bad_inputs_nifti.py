"""Rows 24 and 36 to 44 of the table of bad inputs: voxels, masks, NIfTI and BIDS."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bad_inputs import Build, Case
from bad_inputs_dicom import made, right
from bad_nifti_files import BAD_NIFTI
from dicom_series import save as save_dicom
from nifti_files import OBLIQUE, SHIFTED, echo_values, patch_header, save, save_series
from small_scans import T2STAR, TE_MS, datasets, dicom_folder, load, nifti_folder, signal
from spin_echoes import TE as TE_SPIN_ECHO
from spin_echoes import nifti_folder as spin_echo_folder

# voxels ---------------------------------------------------------------------------------------------------------------


def voxels(*options: object, **values: Any) -> Build:
    """A NIfTI scan whose voxels at x = 0 hold something else."""

    def build(folder: Path) -> list[object]:
        images = signal()
        for y, value in values.items():
            images[0, int(y.removeprefix("y"))] = value
        return [nifti_folder(folder / "scan", images), *options]

    return build


def ends_as(*names: str) -> Callable[[Path], None]:
    """The first voxels at x = 0 have no value and say why; all others are right."""

    def check(out: Path) -> None:
        levels = json.loads((out / "status.json").read_text())["Levels"]
        n = len(names)
        assert tuple(levels[str(int(code))] for code in load(out, "status")[0, :n, 0]) == names
        assert np.isnan(load(out, "T2starmap")[0, :n]).all()
        assert np.isfinite(load(out, "T2starmap")[0, n:]).all()
        right(out)

    return check


def negative_dicom(folder: Path) -> None:
    files = datasets()
    for ds in files:
        ds.PixelRepresentation = 1
    values = np.frombuffer(files[-1].PixelData, "<i2").copy()
    values[::16] = -5  # x = 0
    files[-1].PixelData = values.tobytes()
    save_dicom(folder, files)


def half_negative(folder: Path) -> None:
    """The sign of every other echo is lost."""
    nifti_folder(folder, signal() * [1, -1, 1, -1])


def right_everywhere(out: Path) -> None:
    np.testing.assert_allclose(load(out, "T2starmap")[..., 0], T2STAR, rtol=1e-3)


def real_images(folder: Path) -> list[object]:
    scan = nifti_folder(folder / "scan")
    for path in scan.glob("*.json"):
        seconds = json.loads(path.read_text())["EchoTime"]
        path.write_text(json.dumps({"InversionTime": 10 * seconds, "ImageType": ["ORIGINAL", "PRIMARY", "R"]}))
    return [scan, "--negative", "abs"]


def saturated(folder: Path) -> None:
    images = signal()
    images[0, :, 0] = 2.0**16 - 1
    dicom_folder(folder, images)


def flagged_as_saturated(out: Path) -> None:
    """The values are there, nothing is lost; but no number of the report is made of them."""
    status = json.loads((out / "status.json").read_text())["Levels"]
    codes = load(out, "status")[..., 0]
    assert {status[str(int(code))] for code in codes[0]} == {"SATURATED"}
    assert {status[str(int(code))] for code in codes[1:].ravel()} == {"OK"}
    assert np.isfinite(load(out, "T2starmap")).all()
    right(out)


# masks and NIfTI ------------------------------------------------------------------------------------------------------


def masked(values: np.ndarray, affine: np.ndarray = OBLIQUE) -> Build:
    def build(folder: Path) -> list[object]:
        mask = save(folder / "mask.nii.gz", values.astype(np.uint8), affine=affine)
        return [nifti_folder(folder / "scan"), "--mask", mask]

    return build


def bad_nifti(case: str) -> Build:
    def build(folder: Path) -> list[object]:
        (folder / "scan").mkdir()
        BAD_NIFTI[case][0](save_series(folder / "scan"))
        return [folder / "scan"]

    return build


def resaved(change: Callable[[Path, np.ndarray, dict[str, Any]], None]) -> Build:
    """The usual NIfTI scan, every uncompressed file written anew by `change(path, values, sidecar)`."""

    def build(folder: Path) -> list[object]:
        (folder / "scan").mkdir()
        for echo, te_ms in enumerate(TE_MS):
            sidecar = {"EchoTime": te_ms / 1e3, "SeriesNumber": 3}
            change(folder / "scan" / f"e{echo}.nii", signal()[:, :, None, echo].astype(np.float32), sidecar)
        return [folder / "scan"]

    return build


def big_endian(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
    save(path, values.astype(">f4"), sidecar=sidecar, endianness=">")


def slope(number: float) -> Callable[[Path, np.ndarray, dict[str, Any]], None]:
    def change(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
        patch_header(save(path, values, sidecar=sidecar), 112, struct.pack("<f", number))

    return change


def two_places(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
    image = nib.Nifti1Image(values, OBLIQUE)
    image.set_sform(OBLIQUE, 1)
    image.set_qform(np.diag([2.0, 1.5, 3.0, 1.0]), 1)
    image.to_filename(path)
    path.with_suffix(".json").write_text(json.dumps(sidecar))


def byte_order_mark(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
    save(path, values)
    path.with_suffix(".json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(sidecar, indent=1).replace("\n", "\r\n").encode()
    )


def bids(missing: int | None, part: str) -> Build:
    """The usual NIfTI scan under BIDS names, without one of its echoes."""

    def build(folder: Path) -> list[object]:
        scan = nifti_folder(folder / "scan")
        for path in scan.iterdir():
            echo, suffix = int(path.name[5]), path.name[6:]  # gre_e1.nii.gz
            path.rename(path.with_name(f"sub-01_echo-{echo}{part}_MEGRE{suffix}"))
            if echo == missing:
                path.with_name(f"sub-01_echo-{echo}{part}_MEGRE{suffix}").unlink()
        return [scan]

    return build


def one_file(values: np.ndarray, *options: object) -> Build:
    return lambda folder: [save(folder / "a.nii", values), *options]


def beyond_int16(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
    save(path, 1e4 * values, sidecar=sidecar)


def never_integers(out: Path) -> None:
    assert {nib.load(path).get_data_dtype().str for path in out.glob("*map.nii.gz")} == {"<f4"}
    right(out)


def two_echoes(folder: Path) -> list[object]:
    return [spin_echo_folder(folder / "scan", np.ones((16, 16, 2)), TE_SPIN_ECHO[:2])]


ONES = np.ones((16, 16, 1))
BOTH = np.arange(256).reshape(16, 16, 1) + 1
WRONG = {
    "5-D": "shape", "complex": "complex values; take the magnitude", "zero affine": "affine cannot be inverted",
    "cut in the voxels": "not a readable NIfTI", "cut, not compressed": "truncated: 591 of 592 bytes",
    "wrong checksum": "CRC", "empty file": "empty file",
}  # fmt: skip
WORDLESS = {
    "no sidecar": "no EchoTime.*--te-ms", "sidecar is not JSON": r"scan_e2\.json: not valid JSON",
    "sidecar is binary": r"scan_e2\.json: not valid JSON", "sidecar is a list": "holds a JSON list",
}  # fmt: skip

NIFTI_CASES = [
    Case(24, "2 echoes for 3 parameters", two_echoes, 4, "2 echoes cannot determine 3 parameters", command="t2"),
    Case(36, "negative magnitudes, NIfTI", voxels(y0=[9000, 4000, 900, -50]), check=right,
         words=r"1 of 1024 .*are negative and are fitted as they are.*Use .*negative.*abs"),
    Case(36, "negative magnitudes, DICOM", made(negative_dicom), words="16 of 1024 .* are negative", check=right),
    Case(36, "negative magnitudes, --negative abs", made(half_negative, "--negative", "abs"), check=right_everywhere,
         words=r"512 of 1024 .* are negative; their absolute values are fitted"),
    Case(36, "real images, --negative abs", real_images, 2, "--negative is about magnitudes.*are real", "t1"),
    Case(37, "voxel all zero", voxels(y0=0.0), check=ends_as("NO_SIGNAL")),
    Case(37, "all voxels zero", lambda f: [nifti_folder(f / "scan", np.zeros((16, 16, 4)))], words="no voxel could be"),
    Case(38, "NaN and Inf voxels", voxels(y0=np.nan, y1=np.inf), check=ends_as("NOT_FINITE", "NOT_FINITE")),
    Case(39, "constant and rising signals", voxels(y0=100.0, y1=[100.0, 200.0, 300.0, 400.0]),
         check=ends_as("AT_BOUND", "AT_BOUND")),
    Case(40, "saturated voxels", made(saturated), words="6.25 % of the voxels.*may be clipped",
         check=flagged_as_saturated),
    Case(41, "mask of another shape", masked(np.ones((16, 16, 2))), 4, r"shape \(16, 16, 2\).*\(16, 16, 1\)"),
    Case(41, "mask in another place", masked(ONES, SHIFTED), 4, "lies elsewhere"),
    Case(41, "mask empty", masked(0 * ONES), 4, "mask is empty"),
    Case(41, "mask not binary", masked(np.minimum(BOTH, 255)), words="not binary; voxels above 0", check=right),
    Case(42, "3-D file, list of TE", one_file(echo_values(0.01), "--te-ms", 4, 9, 13), 2, "3 echo times.*per slice: 1"),
    *[Case(42, f"NIfTI {what}", bad_nifti(what), 4, words) for what, words in WRONG.items()],
    Case(42, "big-endian", resaved(big_endian), check=right),
    Case(42, "scl_slope 0", resaved(slope(0.0)), check=right),
    Case(42, "scl_slope NaN", resaved(slope(np.nan)), check=right),
    Case(42, "sform and qform disagree", resaved(two_places), words="the sform is used", check=right),
    Case(42, "values beyond int16 are written as float32", resaved(beyond_int16), check=never_integers),
    *[Case(43, what, bad_nifti(what), 5, words) for what, words in WORDLESS.items()],
    Case(43, "byte order mark and CRLF", resaved(byte_order_mark), check=right),
    Case(44, "BIDS, echo-2 missing", bids(2, "_part-mag"), 4, "echo-2 of echo-1 to echo-4 missing"),
    Case(44, "BIDS, part- absent", bids(None, ""), words="taken for magnitude images", check=right),
]  # fmt: skip
