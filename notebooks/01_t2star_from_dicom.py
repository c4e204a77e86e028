# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # T2\* maps from DICOM images
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxqmri/jaxqmri/blob/main/notebooks/01_t2star_from_dicom.ipynb)
#
# After one excitation, a gradient-echo sequence takes an image at each of several echo times TE. In every voxel the
# signal decays, and its time constant is T2\*: short where iron or air disturbs the field, long in fluid. This notebook
# goes from a folder of DICOM files to a map of T2\* with an error bar in every voxel.
#
# The data and the first fit are those of the *QMRI Challenge ISMRM 2024* example of
# [MRpro](https://github.com/PTB-MR/mrpro): 11 echoes, 20 000 steps of Adam. The second fit finds the exact
# least-squares solution. The cells check themselves with `assert`: if this page runs to its end, its claims hold.
#
# It takes about half a minute on two CPU cores. Inside jaxqmri times are in seconds; only pictures and tables show
# milliseconds.
#
# ## Setup
#
# In Colab, the next cell installs jaxqmri around the JAX that is already there, so that its GPU or TPU support stays
# intact. Elsewhere it does nothing: run `pip install .` in the repository first.

# %%
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

if "google.colab" in sys.modules and find_spec("jaxqmri") is None:
    keep = [f"{package}=={version(package)}" for package in ("jax", "jaxlib", "numpy")]
    source = "git+https://github.com/jaxqmri/jaxqmri"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source, *keep], check=True)

# %%
import json
import tempfile
import time
import warnings
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from IPython.display import Markdown
from matplotlib.patches import Patch
from scipy import stats

import jaxqmri as jq
from jaxqmri.errors import DatasetUnavailableError
from jaxqmri.io.dicom.write import write_dicom
from jaxqmri.mapping.t2star import EXAMPLE_SCALE
from jaxqmri.phantoms import REGIONS, gradient_echo_images, head_slice
from jaxqmri.report import figures
from jaxqmri.report.slices import radiological_view
from jaxqmri.workflow.demo import compare_with_truth

with warnings.catch_warnings(action="ignore"):  # of tqdm: no ipywidgets, which nothing here needs
    from jaxqmri.datasets import fetch

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 110, "bbox_inches": "tight"}
plt.rcParams["font.size"] = 8


def table(header, rows):
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in cells))


device = jax.devices()[0]
print(f"jaxqmri {jq.__version__} on jax {jax.__version__}")
print(f"computing on the {device.platform.upper()}: {device.device_kind}")

# %% [markdown]
# ## 1 The images
#
# `fetch` downloads the example's images from [Zenodo](https://doi.org/10.5281/zenodo.10868361) (446 kB), verifies
# their checksum and keeps them in a cache. Without a network, a *digital reference object* takes their place: one slice
# of a head with known T2\*, given the noise of a single receive coil and written as 11 DICOM files, as a scanner would.

# %%
work = tempfile.TemporaryDirectory()
phantom = head_slice(128)
GAIN = 3000.0  # signal of the brightest tissue at TE = 0 [a.u.]
SNR = 100.0  # that signal over the standard deviation of the noise in each channel


def write_reference_object(name, seed):
    """A folder of DICOM files, and the images before they were rounded to integers."""
    folder = Path(work.name) / name
    folder.mkdir()
    te = np.linspace(2e-3, 40e-3, 11)  # s
    rng = np.random.default_rng(seed)
    images = gradient_echo_images(phantom, te, snr=SNR, gain=GAIN, rng=rng)
    write_dicom(folder, images, te, phantom.affine, "reference object, multi-echo GRE")
    return folder, images


try:
    folder, simulated = fetch("ismrm2024-t2star", progress=True), None
    print("In use: the images of the ISMRM 2024 challenge, Zenodo record 10868361.")
except DatasetUnavailableError:
    folder, simulated = write_reference_object("reference", seed=1)
    print("In use: the digital reference object. The Zenodo images are not available here;")
    print("`jaxqmri data fetch ismrm2024-t2star` says why, and how to get them by hand.")

# %% [markdown]
# ## 2 One series with its echo times
#
# `read_dicom` sorts the files by what their headers say, never by their names. It applies each file's rescaling,
# converts TE from DICOM's milliseconds to seconds and finds out where the voxels lie in the patient. If an echo time is
# missing, a slice lacks an echo or two series are mixed up, it raises an error that names the file.

# %%
series = jq.read_dicom(folder)

x, y, z, n_echoes = series.data.shape
print(f"{series.n_files} DICOM files, {series.component}")
print(f"{x} x {y} x {z} voxels of", " x ".join(f"{edge:.3g}" for edge in series.voxel_size), "mm")
print(f"{n_echoes} echoes at", ", ".join(f"{1e3 * te:.4g}" for te in series.te), "ms")

assert series.component == "magnitude"
assert n_echoes >= 3
assert np.all(np.diff(series.te) > 0)
if simulated is not None:
    assert np.abs(series.data - simulated).max() <= 0.5  # DICOM only rounds
    np.testing.assert_allclose(series.affine, phantom.affine, atol=1e-6)  # mm

# %%
view, middle = radiological_view(series.affine), z // 2
_, grid = plt.subplots(2, -(-n_echoes // 2), figsize=(9, 3.6))
for axes in grid.flat:
    axes.axis("off")
for axes, echo, te in zip(grid.flat, np.moveaxis(series.data[:, :, middle], -1, 0), series.te, strict=False):
    axes.imshow(view(echo), "gray", vmin=0, vmax=np.percentile(series.data[:, :, middle], 99.5))
    axes.set_title(f"TE {1e3 * te:.4g} ms", fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## 3 The model
#
# $$ S(\mathrm{TE}) = S_0 \, \mathrm{e}^{-\mathrm{TE} / T_2^*} $$
#
# A model holds the protocol (here the echo times) and is called with the tissue. It is a pure JAX function of one
# voxel, and `simulate` applies it to as many as the parameters have.

# %%
model = jq.MonoExponential(series.te)

t2star = np.array([0.010, 0.030, 0.060, 0.120])  # s
tissue = jq.Decay(s0=1.0, t2=t2star)
te_curve = np.linspace(0, series.te[-1], 200)  # s
signals = jq.simulate(model, tissue)
curves = jq.simulate(jq.MonoExponential(te_curve), tissue)

assert signals.shape == (4, n_echoes)
np.testing.assert_allclose(signals, np.exp(-series.te / t2star[:, None]), rtol=1e-5)

plt.figure(figsize=(5.2, 3))
for t, signal, curve in zip(t2star, signals, curves, strict=True):
    (line,) = plt.plot(1e3 * te_curve, curve, label=f"T2* = {1e3 * t:.0f} ms")
    plt.plot(1e3 * series.te, signal, "o", color=line.get_color(), markersize=4)
plt.xlabel("echo time [ms]")
plt.ylabel("signal / S0")
plt.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4 The example's fit: 20 000 steps of Adam
#
# As published: the images divided by 1500, the mean squared error as the loss, S0 starting at the shortest echo and
# T2\* at 20 ms, a constant learning rate of 0.001. `mask="auto"` leaves out air (section 8 shows why).

# %%
start = time.perf_counter()
adam = jq.t2star_map(series, method="adam", mask="auto")
adam_s = time.perf_counter() - start

n_fitted = np.count_nonzero(adam["status"] == jq.Status.OK)
print(f"Adam, 20 000 steps: {adam_s:.1f} s for {n_fitted} voxels")

# %% [markdown]
# ## 5 The exact fit: Levenberg–Marquardt
#
# Two parameters and a model with simple derivatives need no learning rate. From a straight line through the logarithm
# of the signal, a few damped Gauss–Newton steps reach the least-squares solution to the precision of float32, in all
# voxels at once; every voxel stops by itself. This is the default method. The first call compiles, later ones only
# compute.

# %%
seconds = []
for _ in range(6):
    start = time.perf_counter()
    lm = jq.t2star_map(series, mask="auto")
    seconds.append(time.perf_counter() - start)
cold_s, warm_s = seconds[0], min(seconds[1:])

both = (lm["status"] == jq.Status.OK) & (adam["status"] == jq.Status.OK)


def example_loss(maps):
    """The example's loss: mean squared error over voxels and echoes, on its scale."""
    s0, t2star = (maps[name][both][:, None].astype(float) for name in ("S0map", "T2starmap"))
    misfit = s0 * np.exp(-series.te / t2star) - series.data[both]
    return np.mean((misfit / EXAMPLE_SCALE) ** 2)


lm_loss, adam_loss = example_loss(lm), example_loss(adam)
difference = np.abs(adam["T2starmap"][both] / lm["T2starmap"][both] - 1)

assert lm_loss <= adam_loss * (1 + 1e-6)  # never higher
assert np.median(difference) < 0.01  # the same answer, where Adam has settled
assert adam_s > 50 * warm_s

print(f"Adam took {adam_s / warm_s:.0f} times as long as the exact fit, once that is compiled.")
print(f"Their T2* differ by {np.median(difference):.4%} in the median voxel,", end=" ")
print(f"by {difference.max():.1%} in the worst.")
table(
    ["", "first call", "once compiled", "loss"],
    [
        ["Adam, 20 000 steps", f"{adam_s:.1f} s", "", f"{adam_loss:.5e}"],
        ["exact fit", f"{cold_s:.1f} s", f"{1e3 * warm_s:.1f} ms", f"{lm_loss:.5e}"],
    ],
)

# %% [markdown]
# Adam's time includes its compilation, a second or two. Its constant learning rate keeps the parameters moving around
# the minimum: most voxels have settled, a few have not.
#
# ## 6 The maps
#
# S0 (the example's M0), T2\* and the relative error $\sum |q - x| / \sum |x|$ of the model *q* against the
# measurements *x*. The relative error shows where the model does not describe the signal. Colours and scale follow the
# recommendation for relaxometry maps ([doi:10.1002/mrm.30290](https://doi.org/10.1002/mrm.30290)): fixed limits, so
# that two scans can be compared by eye, and black where there is no answer.

# %%
figures.maps_figure(lm, series.affine, names=("S0map", "T2starmap", "residual"))

# %%
figures.histogram_figure(lm["T2starmap"], "T2starmap", status=lm["status"])

# %% [markdown]
# ## 7 Is it right? Are the error bars right?
#
# Only a known truth can tell, so whichever images are in use above, this section fits a new reference object with noise
# of its own.

# %%
folder, _ = write_reference_object("known_truth", seed=2)
known = jq.read_dicom(folder)
found = jq.t2star_map(known, mask="auto")

rows = compare_with_truth(found, phantom)
*tissues, microbleeds = (row["error of median [%]"] for row in rows)
assert np.abs(tissues).max() < 1.0
assert 0 < microbleeds < 2.5

table(list(rows[0]), [row.values() for row in rows])

# %% [markdown]
# Tissues are right to a fraction of a per cent. The microbleeds (T2\* = 10 ms) come out slightly long: by the last
# echoes their signal has sunk into the noise, whose magnitude never averages to zero, and a pure exponential mistakes
# that floor for signal.
#
# `T2starmap_stderr` is the standard error of each voxel. It comes from the Jacobian *J* of the model at the solution
# and the distances *r* of the *n* measurements from the curve with *p* = 2 parameters:
#
# $$ \mathrm{se}_k = \sqrt{\left[(J^\top J)^{-1}\right]_{kk} \, s^2}, \qquad s^2 = \frac{\sum r^2}{n - p} $$
#
# Three numbers should agree: the standard error reported, the scatter of T2\* over the voxels of a tissue, and the
# Cramér–Rao bound, below which no unbiased estimate can get. For the bound JAX differentiates the model: `jax.jacfwd`.

# %%
sigma = GAIN / SNR  # a.u.


def cramer_rao_t2star(tissue):
    """Least standard deviation of an unbiased estimate of T2* from one voxel [s]."""
    slopes = jax.jacfwd(jq.MonoExponential(known.te))(tissue)  # dS/dS0 and dS/dT2*, (echo,) each
    jacobian = np.column_stack([slopes.s0, slopes.t2]).astype(np.float64)
    return sigma * np.sqrt(np.linalg.inv(jacobian.T @ jacobian)[1, 1])


rows = []
for label, region in REGIONS.items():
    inside = (phantom.labels == label) & (found["status"] == jq.Status.OK)
    reported = np.sqrt(np.mean(found["T2starmap_stderr"][inside] ** 2))  # s
    scatter = np.std(found["T2starmap"][inside])  # s
    bound = cramer_rao_t2star(jq.Decay(s0=GAIN * region.s0, t2=region.t2star))  # s
    rows.append([region.name, *(f"{1e3 * sd:.3f}" for sd in (reported, scatter, bound))])
    if inside.sum() > 1000:  # enough voxels to know a scatter to 3 %
        assert abs(reported / bound - 1) < 0.05
        assert abs(scatter / bound - 1) < 0.05

table(["SD of T2* [ms]", "reported", "scatter", "Cramér–Rao bound"], rows)

# %% [markdown]
# Voxel by voxel, $z = (\text{estimate} - \text{truth}) / \text{standard error}$ must follow Student's *t* with
# *n* − *p* = 9 degrees of freedom, because each standard error is itself an estimate, from 11 measurements. The
# microbleeds are left out, since there the noise floor breaks the model.

# %%
fitted = (found["status"] == jq.Status.OK) & (phantom.t2star > 0.020)
z_scores = ((found["T2starmap"] - phantom.t2star) / found["T2starmap_stderr"])[fitted]
expected = stats.t(df=len(known.te) - 2)

print(f"SD of z: {z_scores.std():.3f}, expected {expected.std():.3f}")
print(f"within ± 2: {np.mean(np.abs(z_scores) < 2):.1%}, expected {1 - 2 * expected.sf(2):.1%}")

assert abs(z_scores.std() / expected.std() - 1) < 0.05
assert abs(z_scores.mean()) < 0.1

figure, axes = plt.subplots(figsize=(5.2, 2.6))
bins, grid = np.linspace(-6, 6, 61), np.linspace(-6, 6, 301)
axes.hist(z_scores, bins, density=True, color="#b9d3e6", label=f"{z_scores.size} voxels")
axes.plot(grid, expected.pdf(grid), color="#0072b2", label="Student's t")
axes.set(xlabel="(T2* − truth) / standard error", ylabel="probability density", xlim=(-6, 6))
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Back to the images of section 2, with their standard errors as a map. They are large where T2\* is long, because from
# the first echo to the last fluid hardly decays, and in a scan also where the signal is not an exponential.

# %%
figures.maps_figure(lm, series.affine, names=("T2starmap_stderr",))

# %% [markdown]
# ## 8 Voxels without an answer
#
# Where a voxel cannot be fitted, every map holds NaN, and `status` says why. Nothing raises, and the neighbours do not
# change, not even in the last bit. Below, one good voxel is damaged in five ways and all six are fitted together.

# %%
good = series.data[both][np.count_nonzero(both) // 2]
damaged = {
    "untouched": good,
    "NaN in one echo": np.where(np.arange(n_echoes) == 1, np.nan, good),
    "infinite in one echo": np.where(np.arange(n_echoes) == 1, np.inf, good),
    "zero in all echoes": np.zeros_like(good),
    "constant": np.full_like(good, 100.0),
    "rising": np.linspace(100.0, 200.0, n_echoes),
}
together = jq.fit(model, np.stack(list(damaged.values())))
alone = jq.fit(model, good[None])

codes = [jq.Status(int(code)).name for code in together.status]

assert codes == ["OK", "NOT_FINITE", "NOT_FINITE", "NO_SIGNAL", "AT_BOUND", "AT_BOUND"]
assert np.all(np.isnan(together.params.t2[1:]))
assert together.params.t2[0] == alone.params.t2[0]

t2_ms = [f"{1e3 * t2:.3f}" for t2 in together.params.t2]
table(["voxel", "T2* [ms]", "status"], zip(damaged, t2_ms, codes, strict=True))

# %% [markdown]
# Air is another matter. It holds noise, and an exponential can be laid through noise: without a mask, many of its
# voxels get a number. Their error bars give them away, but a mask is simpler. `mask="auto"` keeps what is brighter than
# a tenth of the first image's range; a NumPy array of your own works as well.

# %%
everything = jq.t2star_map(series)
answered = everything["status"] == jq.Status.OK
kept = lm["status"] != jq.Status.MASKED
relative_stderr = everything["T2starmap_stderr"] / everything["T2starmap"]

for place, voxels in (("kept by the mask", kept), ("left out by it", ~kept)):
    errors = relative_stderr[voxels & answered]
    print(f"{place:16}: {errors.size:6} of {voxels.sum():6} voxels have a T2*", end="")
    print(f", standard error {np.median(errors):.1%} in the median" if errors.size else "")
print(f"{'saturated':16}: {np.count_nonzero(series.saturated):6} voxels")

assert np.mean(answered[kept]) > 0.9
np.testing.assert_allclose(everything["T2starmap"][both], lm["T2starmap"][both], rtol=1e-5)

picture = view(everything["status"][:, :, middle])
colours = plt.get_cmap("tab10")
plt.figure(figsize=(4, 3))
plt.imshow(picture, colours, vmin=0, vmax=9, interpolation="nearest")
plt.legend(
    handles=[Patch(color=colours(code), label=jq.Status(code).name) for code in np.unique(picture)],
    loc="center left",
    bbox_to_anchor=(1, 0.5),
    frameon=False,
)
plt.axis("off")
plt.show()

# %% [markdown]
# *Saturated* are voxels at the top of the range in which the file stores numbers. They are fitted like others, although
# their clipped echoes make T2\* too long; to leave them out, pass
# `mask=jaxqmri.mapping.auto_mask(series.data) & ~series.saturated`.
#
# ## 9 Files
#
# `write_maps` writes each map as NIfTI on the grid of the images, T2\* in seconds, and beside it a JSON sidecar in the
# words of [BIDS](https://bids.neuroimaging.io) that tells how it was made.

# %%
out = Path(work.name) / "maps"
files = jq.write_maps(out, lm, series)
print(", ".join(file.name for file in files))

image = nib.load(out / "T2starmap.nii.gz")
np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), lm["T2starmap"])
np.testing.assert_allclose(image.affine, series.affine, atol=1e-4)  # mm

sidecar = json.loads((out / "T2starmap.json").read_text())
assert sidecar["Units"] == "s"
keys = ("Description", "Units", "Equation", "EstimationAlgorithm", "EchoTime")
table(["key in T2starmap.json", "value"], [[key, sidecar[key]] for key in keys])

# %%
work.cleanup()

# %% [markdown]
# ## Where next
#
# * **Your own scan.** `jq.read_dicom("folder")` or `jq.read_nifti("folder")` (files of dcm2niix), then `t2star_map` and
#   `write_maps` as above. The command line does all of it and draws a report: `jaxqmri t2star FOLDER -o OUT`. What it
#   would fit says `jaxqmri inspect FOLDER`.
# * **Other solvers.** `method=` of `t2star_map` takes `"loglinear"` or a solver, such as
#   `jq.Optax(optax.lion(1e-4), steps=5000)`.
# * **Known noise.** `t2star_map(series, noise=jq.Gaussian(sigma))` computes the error bars from a measured noise level
#   instead of the residuals.
# * **Any array.** `jq.fit(model, signal)` takes any shape with the echoes on the last axis, holds parameters fixed with
#   `known=` and starts from `init=`. A model is a JAX function: `jax.jit`, `jax.vmap` and `jax.jacfwd` work on it.
