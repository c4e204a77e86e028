"""DICOM files compressed as a whole are the same images, and none fills the memory."""

import gzip

import numpy as np
import pytest
from dicom_series import enhanced, save, series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from jaxqmri.errors import CorruptInputError
from jaxqmri.io.dicom import packed
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.images import read_images

SYNTAXES = [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]


def files(folder, syntax=ExplicitVRLittleEndian, make=list):
    datasets = make(series())
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = syntax
    return save(folder, datasets)


def zipped(folder):
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


@pytest.mark.parametrize("make", [list, lambda datasets: [enhanced(datasets)]], ids=["classic", "enhanced"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_files_of_gzip_are_read_like_others(tmp_path, monkeypatch, syntax, make):
    monkeypatch.setattr("jaxqmri.io.dicom.scan._STAY_ON_DISK", 8)  # bytes; pixels are unpacked when asked for
    wanted, folder = read_dicom(files(tmp_path / "plain")), zipped(files(tmp_path / "packed", syntax, make))
    for found in (read_dicom(folder), read_images([folder]), read_images(sorted(folder.iterdir()))):
        np.testing.assert_array_equal(found.data, wanted.data)
        assert found.source_format == "DICOM"


@pytest.mark.parametrize("is_zipped", [False, True])
def test_a_file_that_unpacks_to_much_more_is_refused(tmp_path, monkeypatch, is_zipped):
    monkeypatch.setattr(packed, "RATIO_FLOOR", 2**16)
    datasets = series()
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    datasets[2].private_block(0x0099, "ZEROS", create=True).add_new(0x01, "OB", bytes(2**20))
    folder = save(tmp_path, datasets)
    with pytest.raises(CorruptInputError, match=r"IM002.dcm(.gz)?: its \d+ bytes unpack to more than \d+.*gunzip"):
        read_dicom(zipped(folder) if is_zipped else folder)


@pytest.mark.parametrize("keep", [slice(None, -40), slice(None, 300)])
def test_a_packed_file_that_is_cut_short_is_named(tmp_path, keep):
    folder = zipped(files(tmp_path))
    path = folder / "IM002.dcm.gz"
    path.write_bytes(path.read_bytes()[keep])
    with pytest.raises(CorruptInputError, match=r"IM002.dcm.gz: its DICOM header cannot be read .*cut short"):
        read_dicom(folder)
