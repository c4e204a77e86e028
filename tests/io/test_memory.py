"""Images larger than the memory: mapped from a file and fitted slab by slab, with the same results to the last bit."""

import json
import shutil
import warnings
from types import SimpleNamespace

import dicom_series
import nifti_files
import numpy as np
import pytest
import spin_echoes
import t1_scans

import jaxqmri as jq
from jaxqmri.batching.batches import at_most
from jaxqmri.errors import DeviceError, InputWarning, OutputError
from jaxqmri.io.maps import Maps
from jaxqmri.io.storage import memory
from jaxqmri.mapping.fitting.estimate import Estimate
from jaxqmri.mapping.fitting.voxels import auto_mask
from jaxqmri.mapping.t1 import T1
from jaxqmri.mapping.t2 import T2, spin_echo_train
from jaxqmri.mapping.t2star import T2star
from jaxqmri.workflow.run import run_job

N_SLICES = 6
TE = spin_echoes.TE
ONE_SLICE = 512  # voxels


def stacked(images: np.ndarray) -> np.ndarray:
    """16 x 16 images, (x, y, n), twice beside each other -> (x, y, slice, n), each weaker, the last one empty."""
    weights = np.linspace(1, 0.2, N_SLICES)
    weights[-1] = 0
    return (np.tile(images, (1, 2, 1))[:, :, None] * weights[:, None]).astype(np.float32)


@pytest.fixture
def short_of_memory(monkeypatch):
    """From when it is called, images of this shape hardly fit into the memory: one slice is a slab."""

    def limit(shape):
        monkeypatch.setattr(memory, "_memory", lambda: 12 * int(np.prod(shape)))

    return limit


def mapped(images):
    """The same in a file."""
    array = memory.new_images(images.shape, "test")
    assert isinstance(array, np.memmap)
    array[...] = images
    return array


def both(job, scan, tmp_path, limit, shape, **options):
    """The job in memory and slab by slab: results and folders."""
    results = []
    for name in ("whole", "slabs"):
        if name == "slabs":
            limit(shape)
        with at_most(ONE_SLICE):  # so that both share the compiled programs
            results.append(run_job(job, [scan], tmp_path / name, report=False, **options))
    whole, slabs = results
    assert not isinstance(whole.series.data, np.memmap)
    assert isinstance(slabs.series.data, np.memmap)
    return whole, slabs


def check_same_files(whole, slabs):
    assert whole.files == slabs.files
    for name in whole.files:
        if name != "provenance.json":
            assert (whole.out / name).read_bytes() == (slabs.out / name).read_bytes(), name
    records = [json.loads((result.out / "provenance.json").read_text()) for result in (whole, slabs)]
    for key in ("input", "method", "status", "warnings", "outputs"):
        assert records[0][key] == records[1][key]


def nifti_scan(folder, images, keyword, values, **sidecar):
    folder.mkdir()
    facts = {keyword: list(values), "RepetitionTime": t1_scans.IR_TR, "FlipAngle": 90} | sidecar
    nifti_files.save(folder / "a.nii.gz", images, sidecar=facts)
    return folder


def test_a_mapped_nifti_file_gives_the_same_maps(tmp_path, short_of_memory):
    images = np.abs(stacked(spin_echoes.signal()))
    images[3, 4, 2, 1] = np.nan
    scan = nifti_scan(tmp_path / "scan", images, "EchoTime", TE)
    check_same_files(*both(T2star(), scan, tmp_path, short_of_memory, images.shape))
    assert not list(tmp_path.glob(".jaxqmri*"))


def test_mapped_dicom_files_give_the_same_maps(tmp_path, short_of_memory):
    images = np.round(stacked(spin_echoes.signal())).astype("<u2")
    files = [
        dicom_series.image(1e3 * te, k, images[:, ::-1, k, echo].T.copy(), FlipAngle=180)
        for k in range(N_SLICES) for echo, te in enumerate(TE)
    ]  # fmt: skip
    scan = dicom_series.save(tmp_path / "scan", files)
    whole, slabs = both(T2(method="mono", mask="auto"), scan, tmp_path, short_of_memory, images.shape)
    check_same_files(whole, slabs)
    assert (whole.maps["status"] == jq.Status.MASKED).any()


@pytest.mark.slow
def test_a_mapped_inversion_recovery_gives_the_same_t1(tmp_path, short_of_memory):
    images = stacked(np.abs(t1_scans.recovery()))
    scan = nifti_scan(tmp_path / "scan", images, "InversionTime", t1_scans.TI, EchoTime=0.01)
    check_same_files(*both(T1(), scan, tmp_path, short_of_memory, images.shape))


@pytest.mark.slow
def test_what_is_known_of_the_voxels_goes_with_its_slab(short_of_memory, rng):
    images = stacked(t1_scans.spoiled())
    mask = rng.random(images.shape[:3]) < 0.5
    mask[:, :, 3], mask[0, 0, 2] = False, True  # a slab without a voxel
    b1 = rng.uniform(0.8, 1.2, mask.shape).astype(np.float32)
    b1[0, 0, 2] = 0
    known = {
        "b1": b1,
        "noise": jq.Gaussian(rng.uniform(1, 2, mask.shape)),
        "mask": mask,
    }
    fields = {"flip_angles": t1_scans.FLIP_ANGLES, "acquisition": {"RepetitionTime": t1_scans.VFA_TR}}
    with at_most(ONE_SLICE):
        with pytest.warns(InputWarning, match="B1 map is outside"):
            whole = jq.t1_map(jq.ImageSeries.from_arrays(images, **fields), **known)
        short_of_memory(images.shape)
        done = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            slabs = jq.t1_map(jq.ImageSeries.from_arrays(mapped(images), **fields), progress=done.append, **known)
    assert len(caught) == 1, "what concerns the whole series is said once"
    assert list(slabs) == list(whole)
    for name, values in whole.items():
        np.testing.assert_array_equal(slabs[name], values, err_msg=name)
    assert len(done) == N_SLICES - 1
    assert sum(done) == mask.sum()
    assert (whole["status"] == jq.Status.OK).sum() > 500


def test_the_comparison_of_models_is_the_same(short_of_memory):
    images = stacked(spin_echoes.signal())
    shape = images.shape[:3]
    truth = {"T2map": spin_echoes.T2, "TB1map": spin_echoes.B1, "M0map": np.full((16, 16), spin_echoes.M0)}
    maps = Maps({name: np.broadcast_to(np.tile(values, 2)[..., None], shape) for name, values in truth.items()})
    maps["status"] = np.where(images[..., 0] > 0, jq.Status.OK, jq.Status.NO_SIGNAL)
    tissue = jq.Tissue(m0=maps["M0map"], t2=maps["T2map"], b1=maps["TB1map"])

    def compared(images):
        series = jq.ImageSeries.from_arrays(images, te=TE)
        model = spin_echo_train(series, None)[0]
        return T2().compare(series, Estimate(maps, model, tissue, series.te, model))

    whole = compared(images)
    short_of_memory(images.shape)
    assert compared(mapped(images)) == whole
    assert whole[0]["voxels"] == 5 * ONE_SLICE


def test_pieces_are_all_values_in_order_and_few_at_a_time(short_of_memory, rng):
    images = rng.normal(size=(40, 7, 6, 5)).astype(np.float32)
    short_of_memory(images.shape)
    pieces = list(memory.in_c_order(mapped(images)))
    assert b"".join(piece.tobytes() for piece in pieces) == images.tobytes()
    assert len(pieces) > 1
    assert max(piece.nbytes for piece in pieces) <= images.nbytes
    assert [piece.shape for piece in memory.in_c_order(images)] == [images.shape]


def test_the_automatic_mask_is_the_same(short_of_memory, rng):
    images = stacked(spin_echoes.signal()) * (rng.random((16, 32, N_SLICES, 1)) < 0.7).astype(np.float32)
    expected = auto_mask(images)
    short_of_memory(images.shape)
    np.testing.assert_array_equal(auto_mask(mapped(images)), expected)
    assert 0 < expected.mean() < 1


SHAPE = (16, 16, 6, 8)


def test_what_fits_comfortably_is_no_file(monkeypatch):
    monkeypatch.setattr(memory, "_memory", lambda: 16 * int(np.prod(SHAPE)))
    assert not isinstance(memory.new_images(SHAPE, "a"), np.memmap)
    monkeypatch.setattr(memory, "_memory", lambda: 16 * int(np.prod(SHAPE)) - 1)
    assert isinstance(memory.new_images(SHAPE, "a"), np.memmap)
    monkeypatch.setattr(memory, "_memory", lambda: None)
    assert not isinstance(memory.new_images(SHAPE, "a"), np.memmap)


def test_the_file_is_in_the_folder_that_was_asked_for_and_has_no_name(monkeypatch, tmp_path, short_of_memory):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = shutil.disk_usage(tmp_path)
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or before)
    short_of_memory(SHAPE)
    array = memory.new_images(SHAPE, "a")
    assert isinstance(array, np.memmap)
    assert asked == [str(tmp_path)]
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    shape = (16, 16, 6, 10)
    needed = 8 * int(np.prod(shape))
    monkeypatch.setattr(memory, "_memory", lambda: needed)
    assert not isinstance(memory.new_images(shape, "a"), np.memmap), "tight, but it fits"
    monkeypatch.setattr(memory, "_memory", lambda: needed - 1)
    with pytest.raises(OutputError, match=r"a: 16 x 16 x 6 x 10 images .* cannot be had in .*No space.*set TMPDIR to"):
        memory.new_images(shape, "a")


def test_maps_that_the_memory_cannot_hold_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "_memory", lambda: 1000)
    with pytest.raises(DeviceError, match=r"a: the maps of .* need .* GB of memory.*slabs of fewer slices"):
        memory.new_images(SHAPE, "a")


# how much memory there is ---------------------------------------------------------------------------------------------


def limits_found(tmp_path, monkeypatch, groups, mounts, files):
    """What this process reads where /proc and the control groups are these; mounts: (root, mount point, system)."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("\n".join(groups))
    lines = [f"31 24 0:27 {root} {tmp_path / point} rw,relatime shared:9 - {system}" for root, point, system in mounts]
    (proc / "mountinfo").write_text("\n".join(["22 1 0:20 / /proc rw - proc proc rw", *lines]))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "PROC", proc)
    return memory._cgroup_limits()


V1 = "cgroup cgroup rw,memory"
V2 = "cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "wanted"),
    [
        (
            ["0::/user/job"],
            [("/", "fs", V2)],
            {"fs/user/job/memory.max": "max\n", "fs/user/memory.max": "4000\n", "fs/user/job/memory.high": "3000\n"},
            3000,
        ),
        (
            ["5:cpu,memory:/slurm/step", "0::/"],
            [("/", "cpu", "cgroup cgroup rw,cpu"), ("/", "fs", V1), ("/", "unified", V2)],
            {"fs/slurm/step/memory.limit_in_bytes": "5000", "fs/memory.limit_in_bytes": "9223372036854771712"},
            5000,
        ),
        (  # in a container: the path is that of the host, the mount begins at the container
            ["4:memory:/docker/abc"],
            [("/docker/abc", "fs", V1)],
            {"fs/memory.limit_in_bytes": "6000"},
            6000,
        ),
        (["4:memory:/docker/abc"], [("/other", "fs", V1)], {"fs/memory.limit_in_bytes": "7000"}, 7000),
        (["0::/../.."], [("/", "fs", V2)], {"fs/memory.max": "8000"}, 8000),
        (["0::/"], [("/", "fs", V2)], {}, None),
    ],
    ids=["v2", "v1 beside v2", "container", "another root", "outside of the namespace", "no limit"],
)
def test_the_tightest_limit_from_the_own_group_to_the_root_counts(tmp_path, monkeypatch, groups, mounts, files, wanted):
    limits = limits_found(tmp_path, monkeypatch, groups, mounts, files)
    assert min(limits, default=None) == wanted
    assert wanted is None or memory._memory() == wanted


def test_a_system_without_control_groups_has_its_physical_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory._cgroup_limits() == []
    assert memory._memory() > 2**28
