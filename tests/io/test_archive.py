"""An archive is unpacked completely or refused completely; nothing lands outside its folder."""

import shutil
import stat
import struct
import zipfile

import pytest
from zip_files import CENTRAL_SIGNATURE, assert_refused, patched, unpacked_when_damaged, with_mode, zip_of

from jaxqmri.errors import NoInputError, OutputError
from jaxqmri.io.storage.unpacking import unpack


def test_contents_arrive_unchanged(tmp_path):
    contents = {"a/b/one.dcm": bytes(range(256)) * 50, "zwei über.dcm": b"", "-rf": b"x", "10:32.dcm": b"time"}
    archive = zip_of(tmp_path / "a.zip", *contents.items(), ("empty/", b""), ("./c/./d", b"dot"))
    unpack(archive, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*")}
    assert {name: p.read_bytes() for name, p in found.items() if p.is_file()} == {**contents, "c/d": b"dot"}
    assert found["empty"].is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {"a.zip", "out"}


def test_unpacked_files_have_the_users_default_permissions(tmp_path):
    archive = zip_of(tmp_path / "a.zip", (with_mode("setuid.sh", stat.S_IFREG | 0o6777), b"#!/bin/sh"))
    unpack(archive, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "out" / "setuid.sh").stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode


def test_archive_in_the_archive_stays_packed(tmp_path):
    inner = zip_of(tmp_path / "inner.zip", ("x", b"1")).read_bytes()
    unpack(zip_of(tmp_path / "a.zip", ("inner.zip", inner)), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["inner.zip"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil", r"outside the folder"),
        ("a/../../evil", r"outside the folder"),
        ("a/..", r"outside the folder"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("c:evil", "absolute"),
        ("//server/share/evil", "absolute"),
        ("..\\evil", "backslash"),
        ("a\\evil", "backslash"),
        ("\\\\server\\share\\evil", "backslash"),
        ("new\nline", "control characters"),
        (".", "no name"),
        ("n" * 256, "longer than 255 bytes"),
        ("ü" * 128, "longer than 255 bytes"),
    ],
)
def test_untrustworthy_name_refuses_the_whole_archive(tmp_path, name, why):
    assert_refused(zip_of(tmp_path / "a.zip", ("fine.dcm", b"1"), (name, b"2")), why)


def test_name_cut_by_a_null_byte_is_refused(tmp_path):
    # zipfile reads "a.dcm\0.exe" as "a.dcm"; the name as stored counts.
    archive = zip_of(tmp_path / "a.zip", ("a.dcmX.exe", b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"a.dcmX.exe", b"a.dcm\0.exe"))
    assert_refused(archive, "control characters")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = with_mode("link", kind | 0o777)
    assert_refused(zip_of(tmp_path / "a.zip", ("fine.dcm", b"1"), (member, b"/etc/passwd")), "link or a device")


@pytest.mark.parametrize(
    "names",
    [
        ("a.dcm", "a.dcm"),
        ("a.dcm", "A.DCM"),
        ("a.dcm", "./a.dcm"),
        ("a.dcm", "a.dcm."),
        ("stra\u00dfe", "STRASSE"),
        ("u\u0308.dcm", "\u00fc.dcm"),  # decomposed and composed accent
        ("a", "a/b"),
        ("a/b", "A"),
        ("a/", "a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_would_overwrite_each_other_are_refused(tmp_path, names):
    assert_refused(zip_of(tmp_path / "a.zip", *[(name, b"1" * (name[-1] != "/")) for name in names]), "same name")


def test_equal_names_in_different_folders_do_not_clash(tmp_path):
    unpack(zip_of(tmp_path / "a.zip", ("a/x", b"1"), ("b/x", b"2"), ("a/", b"")), tmp_path / "out")
    assert (tmp_path / "out/a/x").read_bytes() + (tmp_path / "out/b/x").read_bytes() == b"12"


def test_folders_that_names_imply_count(tmp_path):
    archive = zip_of(tmp_path / "a.zip", *[(f"{k}/" + "d/" * 9 + "x", b"") for k in range(2)])
    assert_refused(archive, "more than 21 files and folders", max_members=21)
    unpack(archive, tmp_path / "exactly", max_members=22)
    assert_refused(zip_of(tmp_path / "b.zip", ("d/" * 100 + "x", b"")), "more than 100 folders deep")


def test_a_table_of_members_beyond_all_bounds_is_not_read(tmp_path):
    archive = zip_of(tmp_path / "a.zip", *[(f"{k:03d}" + "n" * 250, b"") for k in range(21)])
    raw = bytearray(archive.read_bytes())
    raw[-10:-6] = struct.pack("<L", 2**32 - 2)
    archive.write_bytes(raw)
    assert_refused(archive, "damaged|a table or header of it has 4294967294 bytes")


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2001])
def test_encrypted_member_is_refused(tmp_path, flag):
    archive = patched(zip_of(tmp_path / "a.zip", ("fine", b"1"), ("secret", b"2")), 8, 6, struct.pack("<H", flag))
    assert_refused(archive, "'secret' is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_a_limit_are_refused(tmp_path, method):
    assert_refused(zip_of(tmp_path / "a.zip", ("a", b"1" * 1000), method=method), f"compression method {method}")


def test_bomb_is_stopped_by_its_ratio(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("zeros", bytes(11 * 2**20)))
    assert 100 * archive.stat().st_size < 11 * 2**20
    assert_refused(archive, "100 times")


def test_small_files_that_pack_well_are_fine(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("mask.nii", bytes(2**20)))
    assert 100 * archive.stat().st_size < 2**20
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/mask.nii").stat().st_size == 2**20


def test_bomb_whose_members_share_the_same_bytes_is_stopped(tmp_path, monkeypatch):
    # 20 directory entries for one packed member: each of them looks harmless, and so does the sum of packed sizes.
    archive = zip_of(tmp_path / "a.zip", ("m00", bytes(range(256)) * 2**13), method=zipfile.ZIP_STORED)
    raw = archive.read_bytes()
    start, end = raw.index(CENTRAL_SIGNATURE), raw.index(b"PK\x05\x06")
    entries = b"".join(raw[start:end].replace(b"m00", b"m%02d" % i) for i in range(20))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(entries), start, 0)
    archive.write_bytes(raw[:start] + entries + tail)
    monkeypatch.setattr("jaxqmri.io.storage.unpacking.MAX_RATIO", 10)
    assert_refused(archive, "more than 10 times")


def test_declared_size_beyond_the_limit_is_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a", b"1" * 600), ("b", b"2" * 600))
    unpack(archive, tmp_path / "exactly", max_bytes=1200)
    shutil.rmtree(tmp_path / "exactly")
    assert_refused(archive, "1200 bytes, more than 1199", max_bytes=1199)


def test_member_larger_than_it_declares_is_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("fine", b"1"), ("liar", bytes(2**20)))
    assert_refused(patched(archive, 24, 22, struct.pack("<L", 100)), "damaged")


def test_writing_stops_at_the_declared_size_whatever_zipfile_does(tmp_path, monkeypatch):
    endless = iter([bytes(2**20)] * 100)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda _file, _size: next(endless, b""))
    assert_refused(zip_of(tmp_path / "a.zip", ("liar", b"1")), "holds more than it declares")
    assert len(list(endless)) == 99


def test_member_smaller_than_it_declares_is_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("fine", b"1"), ("liar", b"12345"))
    assert_refused(patched(archive, 24, 22, struct.pack("<L", 2**20)), "damaged")


def test_too_many_members_are_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", *[(f"{i}", b"") for i in range(21)])
    assert_refused(archive, "21 members, more than 20", max_members=20)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_archive_is_refused(tmp_path, share):
    archive = zip_of(tmp_path / "a.zip", *[(f"{i}.dcm", bytes(range(256))) for i in range(5)])
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(share * len(raw))])
    assert_refused(archive, "damaged")


def test_text_instead_of_an_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_text("<html>404</html>")
    assert_refused(tmp_path / "a.zip", "damaged")


def test_any_damaged_byte_leaves_all_or_nothing(tmp_path, rng):
    contents = {"d/one.dcm": b"abc" * 300, "d/two.dcm": bytes(range(256))}
    archive = zip_of(tmp_path / "a.zip", *contents.items())
    for out in unpacked_when_damaged(archive, rng, 200):
        assert {p.read_bytes() for p in out.rglob("*") if p.is_file()} <= set(contents.values())


def test_existing_folder_is_left_alone(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("x", b"new"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == b"old"


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    archive = zip_of(tmp_path / "a.zip", ("x", b"1"))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(NoInputError, match=r"a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
