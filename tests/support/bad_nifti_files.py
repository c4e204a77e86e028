"""Folders of NIfTI files that the reader must refuse, each with the error and its words."""

import gzip

import nibabel as nib
import numpy as np
from nifti_files import OBLIQUE, SHAPE, SHIFTED, TE, echo_values, edit, expected, patch_header, save

from jaxqmri.errors import CorruptInputError, MetadataError, NoInputError


def broken_sidecar(content):
    return lambda folder: (folder / "scan_e2.json").write_bytes(content)


def changed_sidecar(**changes):
    return lambda folder: edit(folder, "scan_e2", **changes)


def changed_all(**changes):
    return lambda folder: [edit(folder, f"scan_e{number}", **changes) for number in (1, 2, 3, 10)]


def second_echo(values, **kwargs):
    return lambda folder: save(folder / "scan_e2.nii.gz", values, **kwargs)


def truncated_to(fraction):
    def cut(folder):
        path = folder / "scan_e2.nii.gz"
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * fraction)])

    return cut


def one_byte_flipped(folder):
    path = folder / "scan_e2.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    checksum = gzip.compress(bytes(content))[-8:]
    content[400] ^= 1
    path.write_bytes(gzip.compress(bytes(content))[:-8] + checksum)


def uncompressed_and_short(folder):
    path = folder / "scan_e2.nii.gz"
    (folder / "scan_e2.nii").write_bytes(gzip.decompress(path.read_bytes())[:-1])
    path.unlink()


def patched(offset, *values, kind=nib.Nifti1Image, behind=b""):
    """The second echo with other bytes in its header, (value, dtype) after each other, or with more behind its end."""

    def patch(folder):
        path = save(folder / "scan_e2.nii.gz", echo_values(TE[1]), kind=kind)
        edit(folder, "scan_e2", EchoTime=TE[1])
        content = bytearray(gzip.decompress(path.read_bytes()))
        new = b"".join(np.array(value, dtype).tobytes() for value, dtype in values)
        content[offset : offset + len(new)] = new
        path.write_bytes(gzip.compress(bytes(content) + behind))

    return patch


def extension_within_the_voxels(folder):
    image = nib.load(folder / "scan_e2.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"16 bytes of text"))
    nib.save(image, folder / "scan_e2.nii")
    (folder / "scan_e2.nii.gz").unlink()
    patch_header(folder / "scan_e2.nii", 108, np.array(368, "<f4").tobytes())


def patched_type(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[70:74] = np.array((16, 32), "<i2").tobytes()
    path.write_bytes(gzip.compress(content))


def one_echo_left(folder):
    for number in (2, 3, 10):
        (folder / f"scan_e{number}.nii.gz").unlink()


def nothing_left(folder):
    for path in folder.iterdir():
        path.unlink()


def only_phase_left(folder):
    for path in sorted(folder.iterdir()):
        stem, suffix = path.name.split(".", 1)
        path.rename(folder / f"{stem}_ph.{suffix}")


def only_phase_in_radians(folder):
    for name in ("scan_e1", "scan_e2", "scan_e3", "scan_e10"):
        edit(folder, name, Units="rad")
    only_phase_left(folder)


def second_series(folder):
    for number, te in ((1, 0.01), (2, 0.02)):
        save(folder / f"b_e{number}.nii", echo_values(te), sidecar={"EchoTime": te, "SeriesNumber": 8})


def scalar_te_for_4d(folder):
    nothing_left(folder)
    save(folder / "a_e1.nii", expected()[..., :3], sidecar={"EchoTime": 0.0046})


def short_te_list_for_4d(folder):
    nothing_left(folder)
    save(folder / "a.nii", expected(), sidecar={"EchoTime": TE[:3]})


RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

BAD_NIFTI = {
    "empty folder": (nothing_left, NoInputError, "no DICOM or NIfTI images found in .*"),
    "one echo": (one_echo_left, CorruptInputError, "only one echo.*need at least 2 echoes"),
    "phase only": (only_phase_in_radians, CorruptInputError, "only phase images.*magnitude"),
    "phase of unknown range only": (only_phase_left, MetadataError, "only phase images.*magnitude.*it is not declared"),
    "two multi-echo series": (second_series, CorruptInputError, "2 multi-echo magnitude series.*folder of their own"),
    "duplicate TE": (changed_sidecar(EchoTime=TE[0]), CorruptInputError, r"scan_e1\..* and scan_e2\..*4 ms twice"),
    "all TE equal": (changed_all(EchoTime=0.004), MetadataError, "all 4 echo times are 4 ms"),
    "other shape": (second_echo(np.ones((5, 4, 2))), CorruptInputError, r"scan_e1\S* and scan_e2\S*: shapes"),
    "other place": (
        second_echo(np.ones(SHAPE), affine=SHIFTED),
        CorruptInputError,
        r"scan_e1\S* and \S*e2\S*: affines",
    ),
    "5-D": (second_echo(np.ones((*SHAPE, 2, 2))), CorruptInputError, r"scan_e2.*shape \(5, 4, 3, 2, 2\)"),
    "1-D": (second_echo(np.ones(5)), CorruptInputError, r"scan_e2.*shape \(5,\)"),
    "complex": (second_echo(np.ones(SHAPE, np.complex64)), CorruptInputError, "scan_e2.*complex.*take the magnitude"),
    "colour": (second_echo(RGB), CorruptInputError, "scan_e2.*colour"),
    "zero affine": (patched(280, (np.zeros(12), "<f4")), CorruptInputError, "scan_e2.*affine cannot be inverted"),
    "voxels of 1e-8 mm": (
        patched(280, (1e-8 * OBLIQUE[:3], "<f4")),
        CorruptInputError,
        "scan_e2.*affine is beyond all bounds .voxels of 2e-08 x",
    ),
    "flat voxels": (
        patched(280, (OBLIQUE[[0, 1, 1]], "<f4")),
        CorruptInputError,
        r"scan_e2.*affine cannot be inverted \(its axes lie in one plane",
    ),
    "vox_offset inf": (patched(108, (np.inf, "<f4")), CorruptInputError, r"scan_e2.*vox_offset is inf"),
    "vox_offset -inf": (patched(108, (-np.inf, "<f4")), CorruptInputError, r"scan_e2.*vox_offset is -inf"),
    "vox_offset 0": (patched(108, (0, "<f4")), CorruptInputError, "scan_e2.*vox_offset 0 lies within its header"),
    "vox_offset of gigabytes": (
        patched(108, (3e9, "<f4")),
        CorruptInputError,
        "scan_e2.*vox_offset 3000000000 leaves more than",
    ),
    "extension within the voxels": (
        extension_within_the_voxels,
        CorruptInputError,
        r"scan_e2.*an extension of 32 bytes reaches into the voxels at vox_offset 368",
    ),
    "longer than its header says": (
        patched(0, behind=bytes(1) + b"x"),
        CorruptInputError,
        "scan_e2.*longer than its header says",
    ),
    "float64 declared float32": (
        lambda folder: [second_echo(np.ones(SHAPE))(folder), patched_type(folder / "scan_e2.nii.gz")],
        CorruptInputError,
        "scan_e2.*longer than its header says",
    ),
    "2^40 volumes": (
        patched(16, (4, "<i8"), (SHAPE, "<i8"), (2**40, "<i8"), kind=nib.Nifti2Image),
        CorruptInputError,
        "scan_e2.*1099511627776 volumes by its header",
    ),
    "128-bit floats": (
        patched(70, ((1536, 128), "<i2")),
        CorruptInputError,
        "scan_e2.*128-bit floating-point values.*save float32",
    ),
    "empty file": (truncated_to(0), CorruptInputError, r"scan_e2\.nii\.gz.*empty file"),
    "cut in the header": (truncated_to(0.1), CorruptInputError, r"scan_e2\.nii\.gz.*not a readable"),
    "cut in the voxels": (truncated_to(0.9), CorruptInputError, r"scan_e2\.nii\.gz.*end-of-stream"),
    "cut, not compressed": (uncompressed_and_short, CorruptInputError, r"scan_e2\.nii: .*truncated: 591 of 592 bytes"),
    "wrong checksum": (one_byte_flipped, CorruptInputError, r"scan_e2\.nii\.gz.*CRC"),
    "text": (lambda folder: (folder / "x.nii").write_text("hello\n" * 200), CorruptInputError, "x.nii: not a readable"),
    "no sidecar": (
        lambda folder: (folder / "scan_e2.json").unlink(),
        MetadataError,
        "no EchoTime.*with (te=|--te-ms)",
    ),
    "no EchoTime": (changed_sidecar(EchoTime=...), MetadataError, "no EchoTime.*with (te=|--te-ms)"),
    "EchoTime null": (changed_sidecar(EchoTime=None), MetadataError, "no EchoTime.*with (te=|--te-ms)"),
    "EchoTime text": (changed_sidecar(EchoTime="0.009"), MetadataError, r"scan_e2\.json: EchoTime is \"0.009\""),
    "EchoTime true": (changed_sidecar(EchoTime=True), MetadataError, r"scan_e2\.json: EchoTime is true"),
    "EchoTime empty list": (changed_sidecar(EchoTime=[]), MetadataError, r"scan_e2\.json: EchoTime is \[\]"),
    "EchoTime list": (changed_sidecar(EchoTime=[0.01, 0.02]), MetadataError, r"scan_e2.*1 volume.*2 echo times"),
    "EchoTime zero": (changed_sidecar(EchoTime=0), MetadataError, r"scan_e2\.json.*positive"),
    "EchoTime negative": (changed_sidecar(EchoTime=-0.01), MetadataError, r"scan_e2\.json.*positive"),
    "EchoTime NaN": (changed_sidecar(EchoTime=float("nan")), MetadataError, r"scan_e2\.json.*finite"),
    "EchoTime in ms": (changed_sidecar(EchoTime=9.0), MetadataError, r"scan_e2\.json.*milliseconds in a field of"),
    "sidecar is not JSON": (broken_sidecar(b"{'EchoTime': 1"), MetadataError, r"scan_e2\.json: not valid JSON"),
    "sidecar is binary": (broken_sidecar(b"\xff\xd8\x80abc"), MetadataError, r"scan_e2\.json: not valid JSON"),
    "a key twice": (
        broken_sidecar(b'{"EchoTime": 0.009, "SeriesNumber": 7, "EchoTime": 0.013}'),
        MetadataError,
        r"scan_e2\.json: EchoTime is there twice, as 0.009 and 0.013; take out the wrong one",
    ),
    "EchoTime of 400 digits": (
        broken_sidecar(b'{"SeriesNumber": 7, "EchoTime": ' + b"9" * 400 + b"}"),
        MetadataError,
        r"scan_e2\.json: EchoTime: echo times must be finite",
    ),
    "sidecar is a list": (broken_sidecar(b"[1]"), MetadataError, r"scan_e2\.json: holds a JSON list"),
    "4-D, one EchoTime": (scalar_te_for_4d, MetadataError, r"a_e1\.nii: 3 volumes but one EchoTime \(4.6 ms\).*real"),
    "4-D, short list": (short_te_list_for_4d, MetadataError, r"a\.nii: 4 volume.*3 echo times"),
}
