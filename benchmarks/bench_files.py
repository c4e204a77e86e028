"""DICOM files in, maps on disk: how long does it take from start to exit of a new process?

    python benchmarks/bench_files.py [--repeats 5] [--small]      (MRpro: see peers.py)

11 files of 128 x 128 of the reference object, as `jaxqmri demo` writes them. "Nothing compiled yet" is the first run on
a machine, "compiled before" every later one: the command keeps compiled programs. `--no-report` leaves out pictures and
page; the maps are the same. MRpro reads the folder with its own reader, fits as the founding example does (Adam, 20 000
steps), and saves two arrays. "Deviation" is that of its T2* from that of `jaxqmri t2star` in the object.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import peers
from fresh import Command, median_and_least, seconds
from timing import arguments, heading, span, table

OURS = "jaxqmri t2star, compiled before"

MRPRO = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, peers, torch
peers.stand_in_for_torchvision()
from mrpro.data import IData
from mrpro.algorithms.optimizers import adam
from mrpro.operators.functionals import MSE
from mrpro.operators.models import MonoExponentialDecay
torch.set_num_threads(1)  # see peers.py: by far the faster on a busy machine
images = IData.from_dicom_folder(sys.argv[2], suffix="dcm")
te = torch.as_tensor(images.header.te, dtype=torch.float32).ravel()
order = torch.argsort(te)
data = images.data.abs().float().reshape(len(te), *images.data.shape[-2:])[order] / 1500
loss = MSE(data) @ MonoExponentialDecay(te[order])
start = [data[0], torch.full_like(data[0], 0.02)]
s0, t2 = adam(loss, start, max_iterations=int(sys.argv[4]), learning_rate=1e-3)
np.save(sys.argv[3] + "/S0.npy", s0.numpy())
np.save(sys.argv[3] + "/T2star.npy", t2.numpy())
"""


def main() -> None:
    given = arguments(__doc__)
    print(heading(("torch", "mrpro")) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        demo, cache, maps = scratch / "demo", scratch / "cache", scratch / "maps"
        maps.mkdir()
        quiet = ["demo", "-o", str(demo), "--no-report", "--quiet"]
        subprocess.run([sys.executable, "-m", "jaxqmri", *quiet], check=True)
        command = ["-m", "jaxqmri", "t2star", str(demo / "dicom"), "--overwrite", "--quiet", "-o"]
        first, later = [*command, str(maps / "first")], [*command, str(maps / "later")]

        def forget() -> None:
            shutil.rmtree(cache / "jaxqmri", ignore_errors=True)

        commands = {
            "jaxqmri t2star, nothing compiled yet": Command(first, before=forget),
            OURS: Command(later),
            "jaxqmri t2star --no-report, compiled before": Command([*later, "--no-report"]),
        }
        steps = 200 if given.small else 20000
        if peers.is_installed("mrpro"):
            (maps / "mrpro").mkdir()
            paths = [str(Path(__file__).parent), str(demo / "dicom"), str(maps / "mrpro"), str(steps)]
            commands[f"MRpro, Adam, {steps} steps"] = Command(["-c", MRPRO, *paths])
        taken = seconds(commands, given.repeats, cache)
        deviation = largest_difference(maps)
    slowest = median_and_least(taken[next(reversed(taken))])[0]
    rows = []
    for name, runs in taken.items():
        median, least = median_and_least(runs)
        error = deviation if name.startswith("MRpro") else ""
        rows.append((name, span(median), span(least), f"{slowest / median:.1f}", error))
    last = next(reversed(taken))
    print(table(("11 DICOM files to maps", f"median of {given.repeats}", "least", f"{last} / this", "deviation"), rows))


def largest_difference(maps: Path) -> str:
    """Of T2* by MRpro from ours, relative, where ours is 5 ... 100 ms: Adam does not get to other values."""
    theirs = maps / "mrpro" / "T2star.npy"
    if not theirs.exists():
        return ""
    image = nib.load(next((maps / "later").rglob("*T2starmap.nii.gz")))  # pyright: ignore[reportPrivateImportUsage]
    ours, found = np.asarray(image.dataobj)[:, :, 0], np.load(theirs)  # pyright: ignore[reportAttributeAccessIssue]
    # NIfTI is x, y from the left and the back; DICOM rows, columns from the right and the front: try all.
    turned = [np.rot90(side, k) for side in (found, found[::-1]) for k in range(4)]
    inside = (ours > 5e-3) & (ours < 0.1)
    differences = [np.abs(one[inside] / ours[inside] - 1) for one in turned]
    median, worst = min((np.median(d), np.max(d)) for d in differences)
    return f"median {median:.1e}, worst {worst:.1e}"


if __name__ == "__main__":
    main()
