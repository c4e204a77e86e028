"""What headers say of the sequence: gradient or spin echoes; and what varies where the axis does not."""

import dicom_series
import nifti_files
import numpy as np
import pytest
from nifti_files import echo_values

from jaxqmri import read_dicom, read_nifti
from jaxqmri.errors import MetadataError
from jaxqmri.io.sequence import kind_of


@pytest.mark.parametrize(
    ("header", "echo"),
    [
        ({"ScanningSequence": "GR"}, "GR"),
        ({"ScanningSequence": ["SE", "IR"], "FlipAngle": 20}, "SE"),
        ({"ScanningSequence": "SE\\GR", "FlipAngle": 20}, ""),
        ({"ScanningSequence": "RM"}, ""),
        ({"ScanningSequence": "RM", "FlipAngle": 25}, "GR"),
        ({"ScanningSequence": "RM", "FlipAngle": 180}, "SE"),
        ({"FlipAngle": 90}, ""),
        *[({"PulseSequenceName": name}, "GR") for name in ("*fl3d12", "spgr", "efgre3d", "mFFE", "T1TFE", "*epfid2d1")],
        *[({"SequenceName": name}, "SE") for name in ("*se2d16", "*tse2d1_16", "memp", "TSE", "*epse2d1", "fse")],
        ({"PulseSequenceType": "Gradient Echo", "FlipAngle": 90}, "GR"),
        ({"SequenceVariant": "SK_SP"}, "GR"),
        ({"SequenceVariant": "SK_SP", "FlipAngle": 90}, ""),  # of spin echoes too
        ({}, ""),
    ],
)
def test_gradient_and_spin_echoes_are_told_by_the_surest_sign(header, echo):
    assert kind_of(header.get, 0.01).echo == echo


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ({"SequenceVariant": ["SK", "SS"]}, True),
        ({"SequenceVariant": "SK_SS_SP"}, False),  # GE, spoiled gradient echoes
        ({"SequenceVariant": "NONE"}, False),
        *[({"SequenceName": name}, True) for name in ("*tfi3d1", "fiesta", "bFFE", "B-TFE", "trufi")],
        *[({"SequenceName": name}, False) for name in ("*fl3d1", "T1TFE", "efgre3d", "*tfl3d1")],
    ],
)
def test_a_steady_state_that_is_not_spoiled_is_told(header, kept):
    assert bool(kind_of(header.get).unspoiled) == kept


def test_a_bids_suffix_and_an_early_echo_tell_too():
    assert [kind_of({}.get, 0.01, suffix).echo for suffix in ("MEGRE", "MESE", "IRT1")] == ["GR", "SE", ""]
    assert (kind_of({}.get, 0.002).echo, kind_of({"FlipAngle": 180}.get, 0.002).echo) == ("GR", "SE")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]},
            "are diffusion images, which are no echoes",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "ASL", "NONE"]}, "these are perfusion images"),
        ({"DiffusionBValue": [0.0, 500.0, 1000.0]}, r"varies is the b-value of diffusion \(DiffusionBValue\)"),
        ({"TemporalPositionIdentifier": [1, 2, 3]}, "what varies is the time point"),
        ({"AcquisitionNumber": [1, 2, 3]}, "what varies is the acquisition"),
        ({"FlipAngle": [3, 8, 17]}, "what varies is the flip angle, 3, 8, 17 deg; `t1_map` maps that"),
        ({"InversionTime": [100, 400, 1600]}, "what varies is the inversion time, 100, 400, 1600 ms; `t1_map` maps"),
    ],
)
def test_of_images_of_one_echo_time_it_is_said_what_varies_instead(tmp_path, tags, words):
    files = dicom_series.series(EchoTime=79, EchoNumbers=1)
    for i, ds in enumerate(files):
        for keyword, each in tags.items():
            setattr(ds, keyword, each if keyword == "ImageType" else each[i // 2])
    with pytest.raises(MetadataError, match=f"all 3 echo times are 79 ms; .*{words}") as refused:
        read_dicom(dicom_series.save(tmp_path, files))
    assert "te=" not in str(refused.value)


def test_echoes_that_all_state_the_shortest_time_are_still_echoes(tmp_path):
    files = dicom_series.series(EchoTime=5)
    for ds in files:
        ds.TriggerTime = ds.InstanceNumber
    with pytest.raises(MetadataError, match=r"all 3 echo times are 5 ms.*give the right ones with te="):
        read_dicom(dicom_series.save(tmp_path, files))


def test_a_time_series_along_the_4th_axis_is_no_decay(tmp_path):
    volumes = np.stack([echo_values(0.01)] * 6, axis=-1)
    path = nifti_files.save(tmp_path / "sub-01_task-rest_echo-1_bold.nii", volumes, sidecar={"EchoTime": 0.012})
    with pytest.raises(MetadataError, match=r"6 volumes but one EchoTime \(12 ms\): these are fMRI images") as refused:
        read_nifti(path)
    assert "te=" not in str(refused.value)
