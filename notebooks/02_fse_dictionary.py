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
# # T2 maps from a fast spin echo, by dictionary matching
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxqmri/jaxqmri/blob/main/notebooks/02_fse_dictionary.ipynb)
#
# A fast spin echo (FSE) refocuses one excitation many times and records an echo after each pulse. Were every pulse a
# perfect 180°, the echoes would decay with T2 and nothing else. They never are, so what is measured is compared with
# simulated trains, a *dictionary*, and the train it looks most like tells T2.
#
# Sections 1 to 3 repeat the *Parameter Fitting* example of [TorchSim](https://github.com/INFN-MRI/torchsim): the echo
# series of a head, a dictionary of 1000 values of T2, an exhaustive search. Sections 4 to 6 do what it leaves out:
# transmit fields that are off, derivatives of the sequence and what they say about a protocol, complex images. The
# cells check themselves with `assert`: if this page runs to its end, its claims hold.
#
# It takes about half a minute on two CPU cores, most of it for compiling. Inside jaxqmri times are in seconds and
# angles in radians; only pictures and tables show milliseconds and degrees.
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
import time
from itertools import chain

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import jaxqmri as jq
from jaxqmri.phantoms import HEAD_REGIONS, head_slice, spin_echo_images, t2_from_dual_echo, with_variation
from jaxqmri.quantities import MapKind, map_kind
from jaxqmri.report.colours import colour_map, colour_scale, displayed
from jaxqmri.report.slices import radiological_view

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 110, "bbox_inches": "tight"}
plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})


def table(header, rows):
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return Markdown("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))


def style_of(symbol, unit, shown_per_si, table, limits):
    return MapKind("", "", symbol, "fit", unit, shown_per_si, table, limits)


def show(affine, rows):
    """Maps in rows, each (title, values in SI units, style), as a radiologist sees them; black: no value."""
    view = radiological_view(affine)
    _, grid = plt.subplots(len(rows), len(rows[0]), figsize=(2.7 * len(rows[0]), 2.25 * len(rows)), squeeze=False)
    for axes, (title, values, style) in zip(grid.flat, chain(*rows), strict=True):
        picture = view(displayed(values, style)[:, :, 0])
        scale = colour_scale(picture, style)
        below, beyond = np.any(picture < scale.vmin), np.any(picture > scale.vmax)
        extend = ("neither", "max", "min", "both")[2 * below + beyond]
        image = axes.imshow(picture, colour_map(style.table), scale, interpolation="nearest")
        plt.colorbar(image, ax=axes, extend=extend, extendfrac=0.04).ax.set_title(style.shown_unit, fontsize=8)
        axes.set_title(title, loc="left")
        axes.axis("off")
    plt.tight_layout()
    plt.show()


def rms(error):
    return np.sqrt(np.mean(np.square(error, dtype=float)))


T2, B1 = map_kind("T2map"), map_kind("TB1map")
M0 = style_of("M0", "a.u.", 1.0, "gray", (0.0, 1100.0))

device = jax.devices()[0]
print(f"jaxqmri {jq.__version__} on jax {jax.__version__}")
print(f"computing on the {device.platform.upper()}: {device.device_kind}")

# %% [markdown]
# ## 1 A head
#
# The example takes its T2 from two images of the [IXI](https://brain-development.org/ixi-dataset) data, one
# PD-weighted (TE 8 ms) and one T2-weighted (TE 100 ms):
#
# $$ T_2 = -\Delta\mathrm{TE} \,/\, \ln(S_\mathrm{T2w} / S_\mathrm{PD}) $$
#
# IXI's files are not part of jaxqmri, so a digital phantom sits for the two images: six tissues whose proton
# density and T2 also vary smoothly by a few per cent, as they do in a person. With a pair of your own, let `pd` and
# `t2w` be one slice of each, such as `nib.load("IXI002-Guys-0828-PD.nii.gz").get_fdata()[:, :, 60:61]`.

# %%
phantom = with_variation(head_slice(128, skull_stripped=False), 0.05, rng=np.random.default_rng(0))
decay = jq.Decay(s0=1000 * phantom.m0, t2=np.nan_to_num(phantom.t2, nan=1.0))  # air has no T2, and no signal
pd, t2w = np.moveaxis(np.asarray(jq.simulate(jq.MonoExponential([0.008, 0.100]), decay)), -1, 0)
affine = phantom.affine

head = pd > 0.1 * pd.max()
t2 = np.where(head, np.nan_to_num(t2_from_dual_echo(pd, t2w, delta_te=0.092)), 0)  # s
m0 = np.where(head, pd, 0)

np.testing.assert_allclose(t2[head], phantom.t2[head], rtol=1e-4)
print(f"{np.count_nonzero(head)} voxels of {head.size} are head.")
show(affine, [[("PD-weighted", pd, M0), ("T2-weighted", t2w, M0), ("T2", t2, T2)]])

# %% [markdown]
# ## 2 The echo train
#
# 32 refocusing pulses of 180°, 5 ms apart, T1 = 1 s. `FSE` is a signal model: it holds the protocol, is called with a
# tissue, and follows the extended phase graph of the train, that is all pathways by which magnetisation can reach
# an echo. As many states are kept as it takes to be exact. `simulate` applies it to every voxel.

# %%
fse = jq.FSE(flip_angles=np.full(32, np.pi), echo_spacing=0.005)
te = np.asarray(fse.echo_times, dtype=float)  # s
images = np.abs(np.asarray(jq.simulate(fse, jq.Tissue(m0=m0, t1=1.0, t2=t2))))

# With perfect pulses no pathway but one is left, and it decays with T2.
np.testing.assert_allclose(images[head], m0[head, None] * np.exp(-te / t2[head, None]), rtol=2e-5)
echoes = [(f"TE {1e3 * te[i]:g} ms", images[..., i], M0) for i in range(0, 32, 4)]
show(affine, [echoes[:4], echoes[4:]])

# %% [markdown]
# ## 3 The dictionary and the match
#
# 1000 trains, T2 from 1 to 350 ms, scaled to norm 1. In every voxel the one with the largest product with the
# signal is found; its T2 is the answer, and the product over the norm it had is M0.
#
# The answer can only be a value of the dictionary: steps of 0.349 ms, hence an RMS error of 0.349 / √12 = 0.101 ms.
# With `refine=True` the best train is where the search starts: a few Gauss–Newton steps with the derivatives of the
# model lead off the grid to the least-squares answer.

# %%
t2_values = np.linspace(0.001, 0.350, 1000)  # s
dictionary = jq.make_dictionary(fse, jq.grid(jq.Tissue, t1=1.0, t2=t2_values))
found = jq.match(dictionary, images)
refined = jq.match(dictionary, images, refine=True)

start = time.perf_counter()
jax.block_until_ready(jq.match(dictionary, images))
print(f"{head.size} voxels against {len(t2_values)} trains, once compiled: {time.perf_counter() - start:.2f} s")

on_grid = head & (t2 > t2_values[0]) & (t2 < t2_values[-1])
grid_error, refined_error = (rms((np.asarray(r.params.t2) - t2)[on_grid]) for r in (found, refined))
m0_error = rms((np.asarray(found.m0) / np.where(head, m0, 1) - 1)[on_grid])

print(f"RMS error of T2: {1e3 * grid_error:.4f} ms on the grid, {1e3 * refined_error:.6f} ms refined")
print(f"that is {grid_error / refined_error:.0f} times smaller; of M0 on the grid: {m0_error:.3%}")
print(f"{np.mean(on_grid[head]):.1%} of the head have a T2 within the dictionary; the rest is fluid.")

assert grid_error < 0.102e-3
assert refined_error < grid_error / 200

# %%
T2_ERROR = style_of("T2 error", "ms", 1e3, "vik", (-0.25, 0.25))
M0_ERROR = style_of("M0 error", "%", 1e2, "vik", (-0.2, 0.2))
shown_t2, shown_m0 = (np.where(head, values, np.nan) for values in (t2, m0))
show(
    affine,
    [
        [
            ("true T2", t2, T2),
            ("reconstructed T2", found.params.t2, T2),
            ("difference", np.where(on_grid, found.params.t2 - t2, np.nan), T2_ERROR),
        ],
        [
            ("true M0", shown_m0, M0),
            ("reconstructed M0", found.m0, M0),
            ("difference", np.where(on_grid, found.m0 / shown_m0 - 1, np.nan), M0_ERROR),
        ],
    ],
)

# %% [markdown]
# The speckle in the differences is the distance to the next value of the dictionary. Fluid, with a T2 of about 2 s,
# lies beyond all of them: it gets the last, 350 ms, and too high an M0, as from any search, and is left out of the
# differences.
#
# ### Why not `jnp.argmax`?
#
# Because float32 cannot tell such trains apart. Neighbours in the dictionary are nearly parallel: their product is
# 1 − *δ*, and float32 rounds numbers just below 1 by up to 3 · 10⁻⁸. `match` searches in float32 as well, for it is
# fast, but normalises the trains in float64 and decides between the best of them by their differences, small numbers
# that keep all their digits. The result is the index that a search in float64 finds, on devices without float64, too.

# %%
exact = np.exp(-te / t2_values[:, None])
exact /= np.linalg.norm(exact, axis=1, keepdims=True)  # (atom, echo), float64, not simulated
line = np.linspace(0.005, 0.349, head.size)  # s, all T2 alike
trains = np.exp(-te / line[:, None]).astype(np.float32)


@jax.jit
def plain_search(signals):
    return jnp.argmax(jnp.matmul(signals, dictionary.atoms.T, precision="highest"), axis=-1)


cases = {
    "the head": (images[on_grid], t2[on_grid], found.index[on_grid]),
    "T2 = 5 … 349 ms": (trains, line, jq.match(dictionary, trains).index),
}
rows, wrong = [], {}
for name, (signals, true_t2, matched) in cases.items():
    wanted = np.argmax(signals.astype(np.float64) @ exact.T, axis=-1)
    for method, index in (("float32 argmax", plain_search(signals)), ("match", matched)):
        wrong[name, method] = np.asarray(index) != wanted
        error = 1e3 * (t2_values[np.asarray(index)] - true_t2)
        rows.append([name, method, f"{wrong[name, method].mean():.1%}", f"{rms(error):.3f}", f"{abs(error).max():.2f}"])

assert not any(wrong[name, "match"].any() for name in cases)
assert wrong["T2 = 5 … 349 ms", "float32 argmax"].mean() > 0.1

table(["signals", "search", "wrong index", "RMS error of T2 [ms]", "largest [ms]"], rows)

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.4))
left.semilogy(1e3 * t2_values[1:], 1 - np.sum(exact[1:] * exact[:-1], axis=1), color="#0072b2")
left.axhline(2.0**-25, color="#d55e00", linestyle="--")
left.text(5, 0.8 * 2.0**-25, "rounding of float32", color="#d55e00", va="top")
left.set(xlabel="T2 [ms]", ylabel="1 − product of neighbours", ylim=(4e-9, 4e-3))
share = wrong["T2 = 5 … 349 ms", "float32 argmax"].reshape(64, -1).mean(axis=1)
right.plot(1e3 * line.reshape(64, -1).mean(axis=1), 100 * share, color="#0072b2")
right.set(xlabel="T2 [ms]", ylabel="wrong by float32 argmax [%]", ylim=(0, None))
plt.tight_layout()
plt.show()

# %% [markdown]
# ## 4 Pulses that are not 180°
#
# The transmit field B1, as a fraction of the nominal one, scales all flip angles. With B1 = 0.8 the pulses are
# 144°: each of them stores part of the magnetisation along the main field, where it decays with T1 instead of T2, and
# brings back what was stored before, as a *stimulated* echo. So the train decays more slowly, and who takes it for an
# exponential finds too long a T2. A dictionary over T2 *and* B1 knows better.
#
# A pulse of 180° + *x* refocuses like one of 180° − *x*, and no train can tell two B1 mirrored at 1 from each other. So
# this dictionary ends at 1. T2 is the same for both.
#
# The exponential is at hand: with perfect pulses the dictionary of section 3 holds nothing else, and refined off its
# grid it gives the least-squares exponential. It ends at 350 ms, so this section leaves out fluid.

# %%
tissues = jq.grid(jq.Tissue, t1=1.0, t2=np.geomspace(0.020, 0.350, 300), b1=np.linspace(0.6, 1.0, 41))
over_b1 = jq.make_dictionary(fse, tissues)
print(f"{over_b1.norms.size} trains")


def t2_both_ways(images):
    """T2 of the exponential and of the dictionary over T2 and B1 [s], and the latter's B1."""
    exponential = jq.match(dictionary, images, refine=True).params.t2
    epg = jq.match(over_b1, images).params
    return np.asarray(exponential), np.asarray(epg.t2), np.asarray(epg.b1)


low_b1 = np.abs(np.asarray(jq.simulate(fse, jq.Tissue(m0=m0, t1=1.0, t2=t2, b1=0.8))))
truth = np.where(on_grid, t2, np.nan)
t2_mono, t2_epg, b1_epg = t2_both_ways(low_b1)

for name, values in (("exponential", t2_mono), ("dictionary over T2 and B1", t2_epg)):
    error = (values / truth - 1)[on_grid]
    print(f"{name:25}: T2 is {error.min():+.2%} … {error.max():+.2%} off, RMS {rms(error):.2%}")
print(f"B1 found: {b1_epg[on_grid].min():.2f} … {b1_epg[on_grid].max():.2f}")

assert np.min((t2_mono / truth)[on_grid]) > 1.04
assert np.abs(t2_epg / truth - 1)[on_grid].max() < 0.0055  # half a step of the dictionary
assert np.abs(b1_epg[on_grid] - 0.8).max() < 0.001

# %% [markdown]
# That was one B1 for all, and the T1 that the dictionary assumes. In a head at 3 T, B1 is 15 % too high in the middle
# and about 25 % too low at the edge of the brain, every tissue has a T1 of its own, and there is noise. The phantom's
# own series has all of it, with an SNR of 100 at M0 = 1000.

# %%
noisy = spin_echo_images(phantom, fse, snr=100, gain=1000, rng=np.random.default_rng(1))
solid = (phantom.t2 > t2_values[0]) & (phantom.t2 < t2_values[-1])
truth_3t = np.where(solid, phantom.t2, np.nan)
t2_mono_3t, t2_epg_3t, b1_3t = t2_both_ways(noisy)

PERCENT = style_of("T2 error", "%", 1e2, "vik", (-15.0, 15.0))
show(
    affine,
    [
        [
            ("B1 = 0.8: exponential", t2_mono / truth - 1, PERCENT),
            ("dictionary over T2 and B1", t2_epg / truth - 1, PERCENT),
            ("its B1", np.where(on_grid, b1_epg, np.nan), B1),
        ],
        [
            ("B1 of 3 T: exponential", t2_mono_3t / truth_3t - 1, PERCENT),
            ("dictionary over T2 and B1", t2_epg_3t / truth_3t - 1, PERCENT),
            ("its B1", np.where(solid, b1_3t, np.nan), B1),
        ],
    ],
)

# %%
rows, medians = [], {}
for label, region in HEAD_REGIONS.items():
    inside = (phantom.labels == label) & solid
    if inside.any():
        b1_there = phantom.b1[inside]
        medians[region.name] = [np.median((t2_found / truth_3t - 1)[inside]) for t2_found in (t2_mono_3t, t2_epg_3t)]
        errors = [f"{median:+.2%}" for median in medians[region.name]]
        rows.append([region.name, f"{b1_there.min():.2f} … {b1_there.max():.2f}", f"{region.t1:.2f}", *errors])

scalp = medians.pop("scalp")
assert max(abs(epg) for _, epg in medians.values()) < 0.01
assert medians["cortex"][0] > 0.05
assert -0.04 < scalp[1] < -0.015

table(["median error of T2", "B1", "T1 [s]", "exponential", "dictionary over T2 and B1"], rows)

# %% [markdown]
# The exponential's T2 has the transmit field in it: right where B1 is 1, 10 % too long in the scalp, where B1 is 0.7.
# So one tissue is not the same in two places. The dictionary is right within 1 % in all tissues but scalp, whose T1 of
# 0.37 s is far from the 1 s assumed: what is stored along the main field there is lost sooner than the dictionary
# thinks. Where T1 is known, `jq.grid` takes it.
#
# ## 5 Derivatives, and what they are good for
#
# `FSE` is a JAX function. `jax.jacfwd` gives the derivative of every echo with respect to the tissue, and
# `jax.vmap` does it for many refocusing angles at once. Here for white matter (T2 = 80 ms) where B1 = 0.8.

# %%
T2_WHITE, B1_LOW = 0.080, 0.8


def train(m0, t2, b1, flip_angle):
    return jq.FSE(jnp.full(32, flip_angle), 0.005)(jq.Tissue(m0=m0, t1=1.0, t2=t2, b1=b1))


@jax.jit
@jax.vmap
def derivatives(flip_angle):
    """Of the signal by m0, t2 and b1, (echo,) each."""
    return jax.jacfwd(train, argnums=(0, 1, 2))(1.0, T2_WHITE, B1_LOW, flip_angle)


angles = np.append(np.arange(60, 181, 5), 180 / B1_LOW)  # degrees; with the last, the true angles are 180 degrees
by_m0, by_t2, by_b1 = (np.asarray(d, dtype=float) for d in derivatives(np.deg2rad(angles)))

# Perfect refocusing after an excitation of 72 degrees is an exponential, whose derivative is known.
expected = np.sin(B1_LOW * np.pi / 2) * te / T2_WHITE**2 * np.exp(-te / T2_WHITE)
np.testing.assert_allclose(by_t2[-1], expected, rtol=1e-4)

_, panels = plt.subplots(1, 2, figsize=(7.0, 2.5), sharey=True)
for axes, angle in zip(panels, (180, 120), strict=True):
    row = list(angles).index(angle)
    axes.axhline(0, color="#b0b0b0", linewidth=0.6)
    axes.plot(1e3 * te, T2_WHITE * by_t2[row], ".-", color="#0072b2", label="T2 · dS/dT2")
    axes.plot(1e3 * te, B1_LOW * by_b1[row], ".-", color="#d55e00", label="B1 · dS/dB1")
    axes.set(xlabel="echo time [ms]", title=f"refocusing by {angle}°, B1 = 0.8")
panels[0].set_ylabel("change of signal [M0]\nper relative change")
panels[0].legend(frameon=False)
plt.tight_layout()
plt.show()

# %% [markdown]
# T2 acts smoothly and late. B1 acts early; part of what it does looks like a change of M0, and part goes up and down
# along the train, which T2 cannot imitate and which is how the two are told apart. With 120° the train reacts less to
# T2.
#
# How much less is what a protocol has to pay. Derivatives *J* and noise of standard deviation *σ* give the
# Cramér–Rao bound, the least scatter that any unbiased estimate of T2 can have:
#
# $$ \mathrm{SD}(T_2) \ge \sigma \sqrt{\left[(J^\top J)^{-1}\right]_{T_2 T_2}} $$
#
# with the column of B1 in *J* if it is estimated, without it if it is known from a B1 map. The dots are matches of
# 16 384 noisy trains each, for which the dictionary has to know nothing of the bound.

# %%
SIGMA = 0.01  # noise per echo, M0 = 1


def bound(*columns):
    """Least relative SD of T2, which is the first of the columns (angle, echo)."""
    jacobian = np.stack(columns, axis=-1)
    covariance = np.linalg.inv(np.swapaxes(jacobian, -1, -2) @ jacobian)
    return SIGMA * np.sqrt(covariance[:, 0, 0]) / T2_WHITE


b1_known, b1_fitted = bound(by_t2[:-1], by_m0[:-1]), bound(by_t2[:-1], by_m0[:-1], by_b1[:-1])
tested = {180: over_b1, 140: jq.make_dictionary(jq.FSE(np.full(32, np.deg2rad(140)), 0.005), tissues)}
rng, scatter, rows = np.random.default_rng(2), {}, []
for angle, trains_of_angle in tested.items():
    k = list(angles).index(angle)
    signal = by_m0[k]  # the signal is proportional to M0
    noisy_trains = signal + SIGMA * rng.standard_normal((*head.shape, signal.size))
    scatter[angle] = np.std(jq.match(trains_of_angle, noisy_trains).params.t2) / T2_WHITE
    assert abs(scatter[angle] / b1_fitted[k] - 1) < 0.05
    percent = [f"{100 * sd:.2f}" for sd in (b1_known[k], b1_fitted[k], scatter[angle])]
    rows.append([f"{angle}°", f"{(angle / 180) ** 2:.0%}", *percent])

table(["refocusing", "its energy", "bound, B1 known [%]", "bound, B1 fitted [%]", "matched, B1 fitted [%]"], rows)

# %%
_, axes = plt.subplots(figsize=(4.6, 2.6))
axes.plot(angles[:-1], 100 * b1_fitted, color="#d55e00", label="B1 fitted")
axes.plot(angles[:-1], 100 * b1_known, color="#0072b2", label="B1 known")
axes.plot(
    list(scatter), 100 * np.array(list(scatter.values())), "o", color="#d55e00", label="dictionary match, B1 fitted"
)
axes.set(xlabel="refocusing angle [degrees]", ylabel="SD of T2 [%], SNR 100", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

at_180, at_140 = list(angles).index(180), list(angles).index(140)
price = (b1_fitted[at_180] / b1_known[at_180]) ** 2
averages = (b1_fitted[at_140] / b1_fitted[at_180]) ** 2
print(f"180°: fitting B1 along takes {price:.2f} times the averages for the same SD.")
print(f"140° instead of 180°: {(140 / 180) ** 2:.0%} of the energy, {averages:.2f} times the averages.")
assert 1.7 < price < 1.85
assert 1.5 < averages < 1.75

# %% [markdown]
# So a B1 map is worth about three quarters more averages here, and the energy that smaller pulses save in the patient
# is paid for in scan time. The match comes within a few per cent of the bound: no estimator would get much more out of
# these echoes, only another protocol.
#
# ## 6 Complex images
#
# Complex signals are matched as they are: the largest |⟨*d*, *s*⟩| wins, whatever the phase, and M0 takes the phase of
# the image along.

# %%
x, y, _ = (2 * np.pi * index / head.shape[0] for index in np.indices(head.shape))
phase = 2.0 * np.sin(x) + 0.4 * y - 1.0  # rad; coil and field together
complex_images = images * np.exp(1j * phase)[..., None]

with_phase = jq.match(dictionary, complex_images)
phase_found = np.angle(with_phase.m0)

RADIANS = style_of("phase", "rad", 1.0, "twilight", (-np.pi, np.pi))
wrapped = np.where(head, np.angle(np.exp(1j * phase)), np.nan)
show(
    affine,
    [
        [
            ("phase of the images", wrapped, RADIANS),
            ("phase of M0", phase_found, RADIANS),
            ("T2", with_phase.params.t2, T2),
        ]
    ],
)
error = np.abs(np.angle(np.exp(1j * (phase_found - phase))))[head]
print(f"largest error of the phase: {error.max():.1e} rad")
print(f"same T2 as from magnitudes in {np.mean((with_phase.index == found.index)[head]):.2%} of the voxels")

assert error.max() < 1e-5
assert np.mean((with_phase.index == found.index)[head]) > 0.99

# %% [markdown]
# ## Where next
#
# * **Your own scan.** `jq.t2_map(jq.read_dicom("folder"))` does section 4 for a multi-echo spin echo and adds error
#   bars; `b1=` takes a B1 map, `t1=` a T1 map. The command line writes the maps, too: `jaxqmri t2 FOLDER -o OUT`.
# * **Other trains.** `FSE` takes any flip angles and phases, a finite TR, a slice profile. What it does not have is
#   written with the operators of `jq.epg`, pulse by pulse.
# * **Larger dictionaries.** `jq.make_dictionary(..., rank=8)` compresses the trains, and the search never holds all
#   voxels × trains at once: only the time grows with their number.
