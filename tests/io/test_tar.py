"""A tar archive, compressed or not, is unpacked under the rules for zip archives, and read like the folder."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from small_scans import dicom_folder, nifti_folder
from zip_files import assert_refused, unpacked_when_damaged

from jaxqmri.errors import CorruptInputError
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.nifti.reader import read_nifti
from jaxqmri.io.storage import unpacking
from jaxqmri.io.storage.unpacking import unpack

COMPRESSED = pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
CONTENTS = {"scan/one.dcm": bytes(range(256)) * 50, "scan/zwei über.dcm": b"", f"scan/{'long' * 50}": b"x"}


def tar_of(path: Path, *members: tuple[str | tarfile.TarInfo, bytes], **options) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def of_kind(kind: bytes, name="other", link="/etc/passwd", **facts) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for key, value in facts.items():
        setattr(info, key, value)
    return info


@COMPRESSED
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_contents_arrive_unchanged(tmp_path, name, form):
    folder = of_kind(tarfile.DIRTYPE, "./", "")
    members = CONTENTS if form != tarfile.USTAR_FORMAT else {k: v for k, v in CONTENTS.items() if len(k) < 100}
    unpack(tar_of(tmp_path / name, (folder, b""), *members.items(), format=form), tmp_path / "out")
    out = tmp_path / "out"
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == members


@pytest.mark.parametrize("make", [dicom_folder, nifti_folder])
@COMPRESSED
def test_images_are_those_of_the_folder(tmp_path, monkeypatch, make, name):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    scan, reader = make(tmp_path / "scan"), read_dicom if make is dicom_folder else read_nifti
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(scan, "export")
    (tmp_path / name).rename(tmp_path / "no suffix")  # told by its content
    np.testing.assert_array_equal(reader(tmp_path / "no suffix").data, reader(scan).data)
    assert {path.name for path in tmp_path.iterdir()} == {"scan", "no suffix"}


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("../evil", "outside the folder"),
        ("a/../../evil", "outside the folder"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("a\\evil", "backslash"),
        ("new\nline", "control characters"),
        ("n" * 256, "longer than 255 bytes"),
        ("d/" * 101 + "x", "more than 100 folders deep"),
        ("FINE.dcm", "same name"),
        ("fine.dcm/below", "same name"),
        *[
            (of_kind(kind), "link or a device")
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
        ],
        (of_kind(tarfile.CONTTYPE), "link or a device"),
        (of_kind(b"?"), "link or a device"),
    ],
)
def test_a_member_that_must_not_be_there_refuses_all(tmp_path, member, why):
    assert_refused(tar_of(tmp_path / "a.tar.gz", ("fine.dcm", b"1"), (member, b"")), why)


def test_sparse_files_are_refused(tmp_path):
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "8000000000000"}
    archive = tar_of(tmp_path / "a.tar", (of_kind(tarfile.REGTYPE, "huge", "", pax_headers=pax), b"0\n" + bytes(510)))
    assert_refused(archive, "link or a device|damaged|more than")


def test_bombs_are_stopped(tmp_path):
    assert_refused(tar_of(tmp_path / "a.tgz", ("zeros", bytes(11 * 2**20))), "100 times")
    many = tar_of(tmp_path / "b.tgz", *[(f"{k}", b"") for k in range(21)])
    assert_refused(many, "more than 20 files and folders", max_members=20)
    deep = tar_of(tmp_path / "c.tgz", *[(f"{k}/" + "d/" * 9 + "x", b"") for k in range(2)])
    assert_refused(deep, "more than 21 files and folders", max_members=21)
    unpack(deep, tmp_path / "exactly", max_members=22)
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        header = of_kind(kind, "x", "", size=2**33).tobuf(tarfile.GNU_FORMAT)  # what follows would be read at once
        (tmp_path / "d.tar.gz").write_bytes(gzip.compress(header + bytes(2**21)))
        assert_refused(tmp_path / "d.tar.gz", "a table or header of it has 8589934592 bytes")
    behind = tmp_path / "e.tar.gz"
    behind.write_bytes(gzip.compress(gzip.decompress(tar_of(behind, ("x", b"1")).read_bytes()) + bytes(2**24)))
    assert_refused(behind, "100 times")


@COMPRESSED
def test_any_damaged_byte_leaves_all_or_nothing(tmp_path, rng, name):
    archive = tar_of(tmp_path / name, ("d/one.dcm", b"abc" * 300), ("d/two.dcm", bytes(range(256))))
    for out in unpacked_when_damaged(archive, rng, 100):
        assert len([path for path in out.rglob("*") if path.is_file()]) == 2
    good = archive.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.8, 0.99):
        archive.write_bytes(good[: int(share * 2560 if name == "a.tar" else share * len(good))])
        with pytest.raises(CorruptInputError, match="damaged"):
            unpack(archive, tmp_path / f"cut{share}")


@pytest.mark.parametrize("suffix", unpacking.OTHER_SUFFIXES)
def test_other_archives_are_named(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"x" * 600)
    with pytest.raises(CorruptInputError, match=r"only zip, tar and tar\.gz are read\. .* another program"):
        read_dicom(tmp_path / f"a{suffix}")
