"""A job is its settings: the function, the command and the words that run it again are read from them."""

import inspect
import json
import pickle
import shlex
from pathlib import Path

import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri.cli.commands import parser
from jaxqmri.cli.options import settings_given
from jaxqmri.errors import CorruptInputError, InputWarning, UsageError, error_in_words, remarks_collected
from jaxqmri.mapping import all_jobs
from jaxqmri.mapping.fitting.voxels import remark_if_negative
from jaxqmri.mapping.settings import settings_of
from jaxqmri.mapping.t1 import T1
from jaxqmri.mapping.t2 import T2
from jaxqmri.mapping.t2star import T2star

TE = np.array([0.005, 0.010, 0.020, 0.040])
SERIES = jq.ImageSeries.from_arrays(1000 * np.exp(-TE / np.full((4, 4, 1, 1), 0.03)), te=TE)
JOBS = pytest.mark.parametrize("job", all_jobs(), ids=lambda job: job.name)


@JOBS
def test_the_function_of_a_job_takes_its_settings_with_their_defaults(job):
    function = getattr(jq, f"{job.name}_map")
    series, *arguments, progress = inspect.signature(function).parameters.values()
    assert (series.name, progress.name) == ("series", "progress")
    assert {a.name: a.default for a in arguments} == {r.name: r.default for r in settings_of(job) if not r.of_reading}
    assert all(f"\n    {argument.name}: " in function.__doc__ for argument in (series, *arguments, progress))
    assert max(map(len, function.__doc__.splitlines())) <= 120
    assert pickle.loads(pickle.dumps(function)) is function


def typed(job, *words):
    """The job of a command line."""
    arguments = parser().parse_args([job.name, "INPUT", "-o", "OUT", *words])
    return job(**settings_given(arguments, settings_of(job)))


@pytest.mark.parametrize(
    "job",
    [
        *(job() for job in all_jobs()),
        T2star(method="loglinear", te=[0.001004, 0.008013], negative="abs", series=["3", "4"], mask="auto"),
        T2star(noise="rician", sigma=12.5, mask=Path("FILE"), drop_first=1),
        T2(echoes=["1,3-8", "10-"]),
        T2(b1=Path("FILE"), t1=0.9, flip_angle=np.deg2rad(150.0)),
        T1(method="ir", tr=np.inf, efficiency=0.95, component="real", ti=[0.05, 0.4, 3.0]),
        T1(noise="gaussian", sigma=12.5),  # Rician where the noise is left open
        T1(method="vfa", b1=Path("FILE"), flip_angles=np.deg2rad([3.0, 8.0, 17.0])),
    ],
    ids=lambda job: job.name,
)
def test_the_words_that_run_a_job_again_make_the_same_job(job):
    again = typed(type(job), *shlex.split(" ".join(job.words())))
    axis = job.axes[0]
    record, repeated = job.arguments(axis), again.arguments(axis)
    assert json.loads(json.dumps(record)) == record, "it can be recorded"
    assert repeated.keys() == record.keys()
    for key, value in record.items():
        of_numbers = isinstance(value, float | list) and key not in ("series", "echoes")
        assert repeated[key] == (pytest.approx(value, rel=1e-6) if of_numbers else value), key


def test_a_record_is_in_si_units_and_names_no_file_and_no_patient():
    job = T2(method="lm", t1=0.9, flip_angle=np.pi, te=TE, mask=Path("/data/Doe^John/mask.nii"), series=["1.2.840.1"])
    record = job.arguments(SERIES.axis)
    assert (record["t1_s"], record["flip_angle_rad"], record["te_s"]) == (0.9, np.pi, TE.tolist())
    assert (record["mask"], record["series"]) == ("FILE", ["UID"])
    assert "--mask FILE --series UID" in " ".join(job.words())


# mistakes -------------------------------------------------------------------------------------------------------------


def test_a_first_gradient_echo_after_all_tissue_has_decayed_is_told():
    late = jq.ImageSeries.from_arrays(np.ones((2, 2, 4)), te=np.array([0.25, 0.6, 1.2, 1.9]))  # in milliseconds
    with pytest.warns(InputWarning, match=r"first echo comes at 0\.25 s, late .* give the echo times with te="):
        T2star().plan(late, np.ones((2, 2, 1), bool))


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ("scan", {}, r"series must be an ImageSeries, as read_dicom and read_nifti give, got .*'scan': read it first"),
        (SERIES.data, {}, "got a?.*ndarray; of images in memory ImageSeries.from_arrays makes a series"),
        (None, {}, "series must be an ImageSeries, .* got None"),
        (SERIES, {"mask": "brain.nii"}, "mask 'brain.nii' is text, not a map; give an array"),
        (SERIES, {"method": "lme"}, "method 'lme' is not one of lm, loglinear, adam or a solver"),
        (SERIES, {"method": 3}, "method 3 is not one of lm, loglinear, adam or a solver"),
        (SERIES, {"noise": 20.0}, "noise 20.0 is not one of gaussian, rician or a noise model"),
        (SERIES, {"noise": "rice"}, "noise 'rice' is not one of gaussian, rician or a noise model"),
        (SERIES, {"sigma": -1.0}, "sigma must be above 0 and finite, got -1"),
        (SERIES, {"noise": jq.Gaussian(2.0), "sigma": 2.0}, "the noise model has its own level; leave out sigma="),
        (SERIES, {"noise": "rician", "method": "adam"}, "method adam knows no Rician noise; use method='lm'"),
    ],
)
def test_mistakes_are_one_line(given, settings, words):
    with pytest.raises(UsageError, match=words) as refused:
        jq.t2star_map(given, **settings)
    assert "\n" not in str(refused.value)


def test_arguments_that_are_swapped_or_unknown_are_told_what_there_is():
    for arguments, settings in (((SERIES.data[..., 0] > 0, SERIES), {}), ((SERIES,), {"metod": "lm"})):
        with pytest.raises(TypeError, match=r"t2star_map\(series: 'ImageSeries', \*, method='lm'.*(many|'metod')"):
            jq.t2star_map(*arguments, **settings)


def test_a_remedy_is_told_in_the_words_of_who_reads_it():
    with pytest.raises(UsageError) as refused:
        T2(method="mono", t1=0.9, flip_angle=3.0)
    assert "leave out t1=, flip_angle" in str(refused.value)
    assert "leave out --t1-ms, --refocusing-deg" in error_in_words(refused.value)[1]
    with pytest.raises(UsageError, match="flip_angles is not allowed with ti: only one can vary"):
        T1(ti=[0.1, 0.2], flip_angles=[0.1, 0.2])
    with pytest.raises(CorruptInputError, match=r"mask is empty.*use mask='none'"):
        jq.t2star_map(jq.ImageSeries.from_arrays(0 * SERIES.data, te=TE), mask="auto")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"drop_first": 1}, [1, 2, 3]),
        ({"echoes": ["2-"]}, [1, 2, 3]),
        ({"echoes": ["1,4"]}, [0, 3]),
    ],
)
def test_images_are_chosen_by_their_numbers(settings, kept):
    np.testing.assert_array_equal(T2star(**settings).selected(SERIES).te, TE[kept])


@pytest.mark.parametrize(
    ("job", "settings", "words"),
    [
        (T2star, {"echoes": ["2-12"]}, "--echoes 2-12: there are only 4 echoes, 5, 10, 20, 40 ms."),
        (T2star, {"echoes": ["3"]}, "--echoes 3 leaves 1 of 4 echoes, 5, 10, 20, 40 ms; at least 2 are needed."),
        (T2star, {"echoes": ["0-3"]}, "--echoes '0-3': give numbers from 1 and ranges of them, as 2-12 or 1,3-8."),
        (T2star, {"echoes": ["3-2"]}, "--echoes '3-2': give numbers"),
        (T2star, {"drop_first": 4}, "--drop-first 4 leaves 0 of 4 echoes"),
        (T2star, {"drop_first": -1}, "--drop-first must not be negative, got -1."),
        (T2star, {"drop_first": 1, "echoes": ["2-3"]}, "--drop-first is not allowed with --echoes."),
        (T1, {"images": ["x"]}, "--images 'x': give numbers"),
    ],
)
def test_images_that_are_not_there_are_told_in_one_line(job, settings, words):
    with pytest.raises(UsageError) as refused:
        job(**settings).selected(SERIES)
    assert error_in_words(refused.value)[1].removeprefix("jaxqmri: error: ").startswith(words)


# remarks --------------------------------------------------------------------------------------------------------------


def test_what_was_remarked_is_on_the_maps_and_goes_on_to_the_caller():
    two = jq.ImageSeries.from_arrays(SERIES.data[..., :2], te=TE[:2])
    with pytest.warns(InputWarning, match="2 echoes determine T2. and S0 exactly") as caught:
        maps = jq.t2star_map(two)
    assert [warning.filename for warning in caught] == [__file__]
    assert [str(remark) for remark in maps.remarks] == [str(warning.message) for warning in caught]
    with remarks_collected() as collected:
        maps = jq.t2star_map(two)
    assert list(maps.remarks) == collected


def test_arrays_of_negative_magnitudes_are_remarked_on(recwarn):
    images = np.ones((4, 4, 1, 3), np.float32) * [1.0, 0.5, 0.2]
    remark_if_negative(jq.ImageSeries.from_arrays(images, te=[0.01, 0.02, 0.03]))
    remark_if_negative(jq.ImageSeries.from_arrays(-images, te=[0.01, 0.02, 0.03], component="real"))
    remark_if_negative(jq.ImageSeries.from_arrays(-images, ti=[0.01, 0.02, 0.03]))  # signed inversion recovery
    assert not recwarn
    with pytest.warns(InputWarning, match="100 % of the magnitudes are negative .*; give absolute values"):
        remark_if_negative(jq.ImageSeries.from_arrays(-images, te=[0.01, 0.02, 0.03]))


def test_arrays_of_complex_numbers_are_no_images():
    with pytest.raises(UsageError, match=r"images are complex; give abs\(images\)"):
        jq.ImageSeries.from_arrays(np.ones((4, 4, 1, 3), complex), te=[0.01, 0.02, 0.03])
