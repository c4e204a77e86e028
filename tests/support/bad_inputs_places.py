"""Rows 45 to 58 of the table of bad inputs: archives, names, the output, and the machine."""

import gzip
import json
import os
import shutil
import signal as signals
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from bad_inputs import Build, Case
from bad_inputs_dicom import TEXT, made, right, spoiled
from bad_inputs_nifti import resaved
from dicom_series import save as save_dicom
from nifti_files import patch_header, save
from small_scans import TE_MS, datasets, dicom_folder
from zip_files import patched, with_mode, zip_of

from jaxqmri.io.storage import archive as archives
from jaxqmri.io.storage import atomic, memory
from jaxqmri.io.storage.result_folder import RECORD, result_folder
from jaxqmri.mapping.fitting import estimate

# archives -------------------------------------------------------------------------------------------------------------


def archive(*members: tuple[str | zipfile.ZipInfo, bytes], mend: Callable[[Path], Path] = lambda path: path) -> Build:
    """A zip of a scan and something else, given in place of a folder."""

    def build(folder: Path) -> list[object]:
        (folder / TEMPORARY).mkdir()
        scan = [(f"export/{path.name}", path.read_bytes()) for path in dicom_folder(folder / "scan").iterdir()]
        shutil.rmtree(folder / "scan")
        return [mend(zip_of(folder / "a.zip", *scan, *members))]

    return build


TEMPORARY = "temporary"  # a failed run leaves it as it was


def temporary_files_here(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(out.parent / TEMPORARY))


def few_files_allowed(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    temporary_files_here(monkeypatch, out)
    monkeypatch.setattr(archives, "MAX_FILES", 20)


def full_temporary_disk(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    temporary_files_here(monkeypatch, out)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=100))


def right_and_tidy(out: Path) -> None:
    assert not any((out.parent / TEMPORARY).iterdir())
    right(out)


def only_archives(folder: Path) -> None:
    folder.mkdir()
    for name in "ab":
        zip_of(folder / f"{name}.zip", ("IM0.dcm", b"1"))


def half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def inflates_without_end(path: Path, values: np.ndarray, sidecar: dict[str, Any]) -> None:
    raw = save(path, values, sidecar=sidecar).read_bytes()
    path.write_bytes(gzip.compress(raw + bytes(2**25), compresslevel=1))


# names and places -----------------------------------------------------------------------------------------------------


def called(name: str) -> Build:
    """The scan, its files and the output in a folder of this name."""

    def build(folder: Path) -> list[object]:
        scan = dicom_folder(folder / name / name)
        for path in scan.glob("*.dcm"):
            path.rename(path.with_name(f"{name}{path.name}"))
        return [scan]

    return build


def deep(folder: Path) -> list[object]:
    return [dicom_folder(folder.joinpath(*["a" * 100] * 4))]


def equal_but_for_case(scan: Path) -> None:
    for i, name in enumerate(("A.dcm", "a.dcm", "B.DCM", "b.dcm")):
        (scan / f"IM{i:03d}.dcm").rename(scan / name)


def earlier(out: Path) -> Path:
    """Results of an earlier run."""
    with result_folder(out, overwrite=True) as hidden:
        (hidden / "earlier.txt").write_text("whole")
        record = {"versions": {"jaxqmri": "0"}, "outputs": ["earlier.txt", RECORD]}
        (hidden / RECORD).write_text(json.dumps(record))
    return out


def into(make_out: Callable[[Path], Path], *options: object) -> Build:
    return lambda folder: [dicom_folder(folder / "scan"), "-o", make_out(folder), *options]


def a_file(folder: Path) -> Path:
    (folder / "mine").write_text("mine")
    return folder / "mine"


def read_only(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
    """The superuser passes permission bits, so the disk has to say it."""

    def refuse(path: Path, _data: bytes) -> None:
        raise OSError(30, os.strerror(30), str(path))

    monkeypatch.setattr(atomic, "_write_through", refuse)


def full_disk(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
    def write(path: Path, data: bytes) -> None:
        path.write_bytes(data[:1000])
        if len(data) > 1000:
            raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(atomic, "_write_through", write)


def earlier_is_whole(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"earlier.txt", RECORD}
    assert (out / "earlier.txt").read_text() == "whole"


def while_fitting(act: Callable[[Path], object]) -> Callable[[pytest.MonkeyPatch, Path], None]:
    def patch(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
        fit = estimate.fit

        def acting(*args: Any, **kwargs: Any) -> Any:
            act(out)
            return fit(*args, **kwargs)

        monkeypatch.setattr(estimate, "fit", acting)

    return patch


def interrupt(_out: Path) -> None:
    raise KeyboardInterrupt


def terminate(_out: Path) -> None:
    os.kill(os.getpid(), signals.SIGTERM)


def only_the_last_run(out: Path) -> None:
    assert not (out / "earlier.txt").exists()
    right(out)


# the machine ----------------------------------------------------------------------------------------------------------


def out_of_memory(n_times: int, most: int = 256) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """The device takes no whole batch the first times; later, halves are padded, which spares compiling anew."""

    def patch(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
        from jaxqmri.estimation import fit as module

        compiled, calls = module.fit_batch, []

        def refusing(*args: Any) -> Any:
            calls.append(1)
            if len(calls) <= n_times:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            *common, batch = args
            n = jax.tree.leaves(batch)[0].shape[0]
            assert n <= most
            whole = jax.tree.map(lambda leaf: np.concatenate([leaf] * (256 // n)), batch)
            return jax.tree.map(lambda leaf: leaf[:n], compiled(*common, whole))

        monkeypatch.setattr(module, "fit_batch", refusing)

    return patch


def memory_of(n_bytes: int, on_disk: int = 4096) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """A machine for the images of the scan, 4096 bytes in float32."""

    def patch(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
        monkeypatch.setattr(memory, "_memory", lambda: n_bytes)
        monkeypatch.setattr(memory, "BYTES_PER_VOXEL", 1)
        monkeypatch.setattr(memory.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=on_disk))

    return patch


def larger_than_memory(folder: Path) -> list[object]:
    """A file of 3 TB, nearly all of it a hole."""
    path = save(folder / "a.nii", np.zeros((2, 2, 2, 4), np.float32), sidecar={"EchoTime": [t / 1e3 for t in TE_MS]})
    patch_header(path, 40, struct.pack("<5h", 4, 6000, 6000, 6000, 4))
    os.truncate(path, 352 + 4 * 4 * 6000**3)
    return [path]


def declares_more_than_there_is(folder: Path) -> list[object]:
    path = save(folder / "a.nii", np.zeros((2, 2, 2, 4), np.float32), sidecar={"EchoTime": [t / 1e3 for t in TE_MS]})
    patch_header(path, 40, struct.pack("<5h", 4, 6000, 6000, 6000, 4))
    return [path]


def loops(scan: Path) -> None:
    (scan / "again").symlink_to(scan)
    (scan / "itself").symlink_to(scan / "itself")


def names_of_patients(folder: Path) -> list[object]:
    scan = save_dicom(folder / "SECRET^NAME", datasets(PatientName="SECRET^NAME"), prefix="SECRET")
    (scan / "SECRET report.dcm").write_text(TEXT)
    return [scan]


def nothing_secret(out: Path) -> None:
    for path in out.iterdir():
        raw = path.read_bytes()
        assert b"SECRET" not in (gzip.decompress(raw) if path.suffix == ".gz" else raw), path.name


MALICIOUS = {
    "../evil": "outside the folder", "/etc/evil": "absolute", "C:/evil": "absolute", "a\\evil": "backslash",
}  # fmt: skip

MACHINE_CASES = [
    *[Case(45, f"zip member {name}", archive((name, b"2")), 4, f"a.zip: archive refused.*{why}",
           patch=temporary_files_here) for name, why in MALICIOUS.items()],
    Case(45, "zip member is a symlink", archive((with_mode("link", stat.S_IFLNK | 0o777), b"/etc")), 4,
         "link or a device", patch=temporary_files_here),
    Case(45, "zip cut short", archive(mend=half), 4, "a.zip: archive refused, it is damaged",
         patch=temporary_files_here),
    Case(46, "zip bomb by its ratio", archive(("zeros", bytes(11 * 2**20))), 4, "more than 100 times",
         patch=temporary_files_here),
    Case(46, "zip member larger than it declares",
         archive(("liar", bytes(2**20)), mend=lambda path: patched(path, 24, 22, struct.pack("<L", 100))), 4,
         "damaged", patch=temporary_files_here),
    Case(46, "compressed NIfTI that inflates without end", resaved(inflates_without_end), 4, "bytes behind the voxels"),
    Case(46, "zip of too many members", archive(*[(f"{i}", b"") for i in range(20)]), 4, "24 members, more than 20",
         patch=few_files_allowed),
    Case(47, "encrypted zip",
         archive(("secret", b"2"), mend=lambda path: patched(path, 8, 6, struct.pack("<H", 1))), 4,
         "'secret' is encrypted", patch=temporary_files_here),
    Case(48, "nested archive", archive(("export/inner.zip", b"PK\3\4")), skipped={"archive": 1},
         patch=temporary_files_here, check=right_and_tidy),
    Case(48, "folder of archives only", made(only_archives), 3,
         "no DICOM or NIfTI images found in .*scan; it holds 2 archives.*name one as INPUT"),
    Case(49, "blanks, accents, Greek", called("Höhe µ (1) 研究"), check=right),
    Case(49, "leading dash and colon", called("-x:1"), check=right),
    Case(49, "path of more than 400 characters", deep, check=right),
    Case(49, "names equal but for upper case", spoiled(equal_but_for_case), check=right),
    Case(50, "output exists", into(lambda folder: earlier(folder / "out")), 6, "already has 1 file.*--overwrite|has 2"),
    Case(51, "output is a file", into(a_file), 6, "is a file"),
    Case(51, "output below a file", into(lambda folder: a_file(folder) / "out"), 6, "Not a directory"),
    Case(51, "output is the input", into(lambda folder: folder / "scan"), 6, "is the input folder"),
    Case(51, "read-only disk", into(lambda folder: folder / "out"), 6, "Read-only file system.*can be written",
         patch=read_only),
    Case(52, "disk full in mid-write", into(lambda folder: earlier(folder / "out"), "--overwrite"), 6,
         "cannot write .*No space left on device.*Free some space", patch=full_disk, check=earlier_is_whole),
    Case(52, "no room to unpack an archive", archive(), 6, r"a.zip: cannot be unpacked .*No space left.*TMPDIR",
         patch=full_temporary_disk),
    Case(53, "Ctrl-C", into(lambda folder: earlier(folder / "out"), "--overwrite"), 130, "interrupted; no half-written",
         patch=while_fitting(interrupt), check=earlier_is_whole),
    Case(53, "SIGTERM", into(lambda folder: earlier(folder / "out"), "--overwrite"), 130, "interrupted; no half-",
         patch=while_fitting(terminate), check=earlier_is_whole),
    Case(54, "another run was faster", into(lambda folder: folder / "out"), 6, "already has 2 files",
         patch=while_fitting(earlier), check=earlier_is_whole, leaves=True),
    Case(54, "another run was faster, --overwrite", into(lambda folder: folder / "out", "--overwrite"),
         patch=while_fitting(earlier), check=only_the_last_run),
    Case(55, "GPU out of memory, halves fit", into(lambda folder: folder / "out"), patch=out_of_memory(1), check=right),
    Case(55, "fewer voxels at once", into(lambda folder: folder / "out", "--chunk", 128), patch=out_of_memory(0, 128),
         check=right),
    Case(55, "GPU out of memory for good", into(lambda folder: folder / "out"), 9, "out of memory; .*--chunk",
         patch=out_of_memory(99)),
    Case(55, "no such GPU", into(lambda folder: folder / "out", "--device", "gpu:99"), 9, "gpu:99: not on this"),
    Case(55, "no voxel at once", into(lambda folder: folder / "out", "--chunk", 0), 2, "--chunk must be at least 1"),
    Case(56, "volume larger than the memory", larger_than_memory, 9, "a.nii.* need .* GB of memory"),
    Case(56, "images that hardly fit into the memory", into(lambda folder: folder / "out"), patch=memory_of(8192),
         check=right),
    Case(56, "neither memory nor disk suffice", into(lambda folder: folder / "out"), 6,
         "No space left on device.*set TMPDIR to", patch=memory_of(8191, on_disk=4095)),
    Case(56, "volume larger than its file", declares_more_than_there_is, 4, "truncated: 480 of 3456000000352 bytes"),
    Case(57, "links that form a loop", spoiled(loops), check=right, words="1 not readable"),
    Case(58, "names of patients in file names", names_of_patients, check=nothing_secret,
         words=r"(?s)\A(?!.*SECRET).*passed over: 1 not DICOM in spite"),
]  # fmt: skip
