"""NIfTI files as dcm2niix leaves them, for the tests."""

import json
import re

import nibabel as nib
import numpy as np

SHAPE = (5, 4, 3)
TE = (0.004, 0.009, 0.013, 0.05)
# 2 x 1.5 x 3 mm voxels, rotated by 30 degrees about z and tilted: nothing in it is zero by accident.
ROTATION = np.array([[0.8660254, -0.5, 0.0], [0.4698463, 0.8137977, -0.3420201], [0.1710101, 0.2961981, 0.9396926]])
OBLIQUE = np.block([[ROTATION * [2.0, 1.5, 3.0], np.array([[-31.0], [12.5], [7.0]])], [np.zeros((1, 3)), 1.0]])
SHIFTED = OBLIQUE + np.outer([1, 0, 0, 0], [0, 0, 0, 0.01])  # by a two-hundredth of a voxel


def save(path, values, affine=OBLIQUE, sidecar=None, kind=nib.Nifti1Image, endianness="<"):
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(values.dtype)
    image = kind(values, affine, header)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.to_filename(path)
    if sidecar is not None:
        path.with_name(re.sub(r"\.nii(\.gz)?$", "", path.name) + ".json").write_text(json.dumps(sidecar))
    return path


def echo_values(te):
    return (1000 * np.exp(-te / 0.03) + np.arange(60).reshape(SHAPE)).astype(np.float32)


def patch_header(path, offset, content):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(raw)


def save_series(folder):
    """One file per echo, names sorting otherwise than echo times: e1, e10, e2, e3."""
    for number, te in zip((1, 2, 3, 10), TE, strict=True):
        sidecar = {"EchoTime": te, "EchoNumber": number, "SeriesNumber": 7, "RepetitionTime": 0.1, "PatientName": "X"}
        save(folder / f"scan_e{number}.nii.gz", echo_values(te), sidecar=sidecar)
    return folder


def edit(folder, name, **changes):
    path = folder / f"{name}.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def expected(te=TE):
    return np.stack([echo_values(t) for t in te], axis=-1)
