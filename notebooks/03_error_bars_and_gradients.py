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
# # Error bars and gradients
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxqmri/jaxqmri/blob/main/notebooks/03_error_bars_and_gradients.ipynb)
#
# A map of T2 answers one question and raises three: how far may it be off by noise, how far because the model is wrong,
# and how far because something that was taken for granted is not true? Sections 1 to 3 are about the error bars that
# `jq.fit` returns with every map. Sections 4 to 6 are about derivatives *of the fit*: JAX differentiates a fitted
# map like any other function, with respect to the images, to what was assumed, and to the protocol.
#
# Everything here is simulated, since only a known truth can tell whether an error bar is right. The cells check
# themselves with `assert`: if this page runs to its end, its claims hold.
#
# It takes about a minute on two CPU cores, nearly all of it for compiling. Inside jaxqmri times are in seconds and
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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from IPython.display import Markdown
from scipy import stats

import jaxqmri as jq
from jaxqmri.phantoms import REGIONS, gradient_echo_images, head_slice, spin_echo_images
from jaxqmri.quantities import MapKind, map_kind
from jaxqmri.report.colours import colour_map, colour_scale, displayed
from jaxqmri.report.slices import radiological_view

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 110, "bbox_inches": "tight"}
plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
# Wong, Nat Methods 8:441 (2011): told apart with any colour vision.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


def table(header, rows):
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return Markdown("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))


def style_of(symbol, unit, shown_per_si, table, limits):
    return MapKind("", "", symbol, "fit", unit, shown_per_si, table, limits)


def show(affine, panels):
    """Maps side by side, each (title, values in SI units, style), as a radiologist sees them; black: no value."""
    view = radiological_view(affine)
    _, row = plt.subplots(1, len(panels), figsize=(2.7 * len(panels), 2.25))
    for axes, (title, values, style) in zip(row, panels, strict=True):
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


device = jax.devices()[0]
print(f"jaxqmri {jq.__version__} on jax {jax.__version__}")
print(f"computing on the {device.platform.upper()}: {device.device_kind}")

# %% [markdown]
# ## 1 What an error bar promises
#
# One voxel with T2\* = 30 ms, 12 gradient echoes, measured 10 000 times. The noise *σ* is known, as from a scan without
# excitation, and `noise=jq.Gaussian(sigma)` says so. Each repetition is fitted by itself and states its own standard
# error, from its own signal alone: how much the model changes with each parameter at the solution, against *σ*.
# `covariance=True` adds how the errors of S0 and T2\* go together.

# %%
N = 10_000
te = np.linspace(0.003, 0.047, 12)  # s
T2STAR, SIGMA = 0.030, 0.02  # s; noise, S0 = 1
rng = np.random.default_rng(1)

clean = np.exp(-te / T2STAR)
repetitions = (clean + SIGMA * rng.standard_normal((N, te.size))).astype(np.float32)


def fit_exponential(te, signal, sigma):
    """Least squares; always asked for the same, so that JAX compiles it once for the whole page."""
    return jq.fit(jq.MonoExponential(te), signal, noise=jq.Gaussian(sigma), covariance=True, batch_size=N)


found = fit_exponential(te, repetitions, SIGMA)
assert np.all(found.status == jq.Status.OK)

s0, t2star = (np.asarray(values, dtype=float) for values in found.params)
covariance = np.asarray(found.covariance, dtype=float)  # (repetition, 2, 2), of s0 and t2
claimed = np.sqrt(covariance.mean(axis=0).diagonal())
z = (t2star - T2STAR) / np.asarray(found.stderr.t2)
expected = stats.norm()
outside = np.mean(np.abs(z) > expected.ppf(0.975))

assert np.abs(claimed / [s0.std(), t2star.std()] - 1).max() < 0.03
assert abs(z.std() - 1) < 0.03
assert abs(outside - 0.05) < 0.01

print(f"Of the 10 000 intervals that should miss the truth in 5.0 % of the cases, {outside:.1%} do.")
table(
    ["SD over the repetitions", "claimed", "seen"],
    [
        ["S0", f"{claimed[0]:.4f}", f"{s0.std():.4f}"],
        ["T2* [ms]", f"{1e3 * claimed[1]:.3f}", f"{1e3 * t2star.std():.3f}"],
    ],
)

# %% [markdown]
# So T2\* ± its standard error means what it should: over many repetitions, (estimate − truth) / standard error has the
# normal distribution. Where nothing is known of the noise, leave `noise` out: it is then estimated in each voxel from
# the distances of the measurements from the curve, and the distribution is Student's *t* with 12 − 2 degrees of
# freedom, as notebook 01 shows.
#
# Two error bars are not the whole story. S0 and T2\* are wrong *together*: a curve that starts too high and falls too
# fast passes through the same points. The covariance matrix *C* holds this as an ellipse. Here the 95 % ellipses of
# three repetitions, and of how many the ellipse contains the truth.

# %%
truth = np.array([1.0, T2STAR])
off = np.stack([s0, t2star], axis=-1) - truth
distance = np.einsum("ri,rij,rj->r", off, np.linalg.inv(covariance), off)
size = stats.chi2(2).ppf(0.95)  # of the ellipse; two parameters
covered = np.mean(distance < size)
correlation = np.corrcoef(s0, t2star)[0, 1]
assert abs(covered - 0.95) < 0.01


def ellipse(centre, matrix):
    turn = np.linspace(0, 2 * np.pi, 100)
    return centre[:, None] + np.sqrt(size) * np.linalg.cholesky(matrix) @ [np.cos(turn), np.sin(turn)]


_, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.7))
left.hist(z, np.linspace(-5, 5, 51), density=True, color="#b9d3e6")
grid = np.linspace(-5, 5, 201)
left.plot(grid, expected.pdf(grid), color=BLUE, label="normal distribution")
left.set(xlabel="(T2* − truth) / standard error", ylabel="probability density", xlim=(-5, 5), ylim=(0, 0.5))
left.legend(frameon=False, loc="upper left")
right.plot(s0[:2000], 1e3 * t2star[:2000], ".", color="#b9d3e6", markersize=2)
for k, colour in zip((3, 5, 9), (BLUE, ORANGE, GREEN), strict=True):
    x, y = ellipse(np.array([s0[k], t2star[k]]), covariance[k])
    right.plot(x, 1e3 * y, color=colour, linewidth=1.2)
    right.plot(s0[k], 1e3 * t2star[k], "o", color=colour, markersize=3)
right.plot(1, 1e3 * T2STAR, "k+", markersize=9)
right.set(xlabel="S0 [a.u.]", ylabel="T2* [ms]")
plt.tight_layout()
plt.show()

print(f"The ellipse contains the truth (+) in {covered:.1%} of the repetitions; correlation {correlation:.2f}.")

# %% [markdown]
# Whoever computes something from both parameters needs the covariance. The signal at 20 ms, say, is known much
# better than the two error bars suggest:

# %%
slope = jax.grad(lambda params: jq.MonoExponential([0.020, 0.040])(params)[0])(jq.Decay(s0=1.0, t2=T2STAR))
g = np.array(slope, dtype=float)
seen = np.std(s0 * np.exp(-0.020 / t2star))
with_covariance = np.sqrt(g @ covariance.mean(axis=0) @ g)
without = np.sqrt(g**2 @ covariance.mean(axis=0).diagonal())
assert abs(with_covariance / seen - 1) < 0.03
assert without > 2 * seen

print(f"SD of the signal at 20 ms: {seen:.4f} seen, {with_covariance:.4f} with the covariance, {without:.4f} without")

# %% [markdown]
# ## 2 Noise that is not Gaussian
#
# Magnitude images are never negative. Where the signal has gone, the magnitude of the noise remains: about 1.25 *σ*, in
# every late echo, and least squares takes this floor for slowly decaying signal. The distribution of magnitudes is
# Rice's. `noise=jq.Rician(sigma)` looks for the T2\* under which what was measured is most likely, floor included. The
# *σ* it needs, that of the two channels before the magnitude was taken, `jq.noise_level` reads off the air in the
# images.

# %%
phantom = head_slice(144)
brain = phantom.labels > 0
GAIN, SNR = 1000.0, 40.0  # signal of water at TE = 0 [a.u.], and over the noise
images = gradient_echo_images(phantom, te, snr=SNR, gain=GAIN, rng=rng)

level = jq.noise_level(images)
print(f"sigma: {level.sigma:.2f} from {level.n_voxels} voxels of air, true {GAIN / SNR:.2f}")
assert abs(level.sigma / (GAIN / SNR) - 1) < 0.01

voxels = images[brain].astype(np.float32)  # (voxel, echo)


def fit_rician(te, signal, sigma):
    return jq.fit(jq.MonoExponential(te), signal, noise=jq.Rician(sigma), batch_size=N)


methods = {"least squares": fit_exponential, "Rician": fit_rician}
fits = {name: method(te, voxels, level.sigma) for name, method in methods.items()}

rows, errors = [], {}
for label, region in REGIONS.items():
    inside = phantom.labels[brain] == label
    last = region.s0 * np.exp(-te[-1] / region.t2star) * SNR
    row = [region.name, f"{1e3 * region.t2star:.1f}", f"{last:.1f}"]
    for name, fit in fits.items():
        errors[region.name, name] = np.nanmean(fit.params.t2[inside]) / region.t2star - 1
        row += [f"{errors[region.name, name]:+.1%}", f"{np.nanmean(fit.reduced_chi2[inside]):.2f}"]
    rows.append(row)

assert errors["microbleed", "least squares"] > 0.05
assert abs(errors["microbleed", "Rician"]) < 0.02

header = ["mean in the image", "T2* [ms]", "SNR of last echo"]
table(header + [f"{name}, {what}" for name in methods for what in ("T2* off by", "χ²")], rows)

# %% [markdown]
# Only the microbleeds suffer: most of their echoes are nothing but noise. Their χ², explained in the next section, says
# nothing about it: the curve bends until it fits the floor as well. How much signal has to be left? Below, T2\* is
# chosen so that a given SNR remains at the last of the 12 echoes, 10 000 voxels each. Grey is what least squares would
# make of the same signals with Gaussian noise, that is without a floor. The bands are the uncertainty of the mean.

# %%
last_snr = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0])
t2stars = te[-1] / np.log(SNR / last_snr)  # s
signals = np.exp(-te / t2stars[:, None])[:, None, :] + np.zeros((N, 1))
real, imaginary = rng.normal(scale=1 / SNR, size=(2, *signals.shape))
magnitudes = np.hypot(signals + real, imaginary)

cases = {
    "least squares": (magnitudes, fit_exponential, ORANGE),
    "without a floor": (signals + real, fit_exponential, "#8a929a"),
    "Rician": (magnitudes, fit_rician, BLUE),
}
bias, spread = {}, {}
_, axes = plt.subplots(figsize=(4.6, 2.5))
axes.axhline(0, color="#b0b0b0", linewidth=0.6)
for name, (measured, method, colour) in cases.items():
    fit = method(te, measured.astype(np.float32), 1 / SNR)
    assert np.mean(fit.status == jq.Status.OK) > 0.999
    relative = np.asarray(fit.params.t2, dtype=float) / t2stars[:, None] - 1
    bias[name], spread[name] = np.nanmean(relative, axis=1), np.nanstd(relative, axis=1)
    low, high = (100 * (bias[name] + k * spread[name] / np.sqrt(N)) for k in (-1, 1))
    axes.fill_between(last_snr, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(last_snr, 100 * bias[name], ".-", color=colour, label=name)
axes.set(xscale="log", xlabel="SNR of the last echo", ylabel="bias of T2* [%]")
axes.set_xticks(last_snr, [f"{s:g}" for s in last_snr])
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()

at_5 = list(last_snr).index(5.0)
assert np.abs(bias["Rician"] - bias["without a floor"]).max() < 0.001
assert bias["least squares"][at_5] > bias["without a floor"][at_5] + 0.003
assert bias["least squares"][0] > 0.02

rows = [
    [f"{s:g}", f"{1e3 * t:.1f}", *(f"{b[k]:+.2%}" for b in bias.values()), *(f"{sd[k]:.1%}" for sd in spread.values())]
    for k, (s, t) in enumerate(zip(last_snr, t2stars, strict=True))
]
header = ["SNR of last echo", "T2* [ms]", *(f"bias, {name}" for name in cases), *(f"SD, {name}" for name in cases)]
table(header, rows)

# %% [markdown]
# At an SNR of 5 in the last echo least squares finds T2\* too long by 0.6 %, at 0.5 by almost 3 %. Either is less than
# the scatter of one voxel, but it does not average out: in the mean of 100 voxels, whose SD is 0.4 %, it is the larger
# error. The Rician fit is left with what is there without any floor, 0.1 %. Any nonlinear fit has such a bias; it
# falls with the square of the noise. And it scatters no more than least squares does.
#
# ## 3 A model that is wrong
#
# An error bar assumes the model. Whether the model holds is another number: the reduced χ², the mean squared distance
# from the curve in units of *σ*, which must be 1 up to chance. It needs a *σ* that does not come from the fit itself.
#
# A spin-echo train in a real transmit field: B1 scales all angles, pulses are not 180°, and stimulated echoes bend the
# decay. Fitted by an exponential:

# %%
train = jq.FSE(flip_angles=np.full(12, np.pi), echo_spacing=0.012)
echoes = spin_echo_images(phantom, train, snr=100, gain=GAIN, rng=np.random.default_rng(3))
train_level = jq.noise_level(echoes)
signal = echoes[brain]

exponential = fit_exponential(train.echo_times, signal, train_level.sigma)
limit = stats.chi2(10).ppf(0.95) / 10  # 12 echoes, 2 parameters
print(f"By chance, 5 % of the voxels would have a reduced χ² above {limit:.2f}; in the brain,", end=" ")
print(f"{np.mean(exponential.reduced_chi2 > limit):.0%} have.")


def as_map(values):
    full = np.full(brain.shape, np.nan, dtype=np.float32)
    full[brain] = values
    return full


CHI2 = style_of("reduced χ²", "", 1.0, "acton", (0.0, 5.0))
PERCENT = style_of("T2 error", "%", 1e2, "vik", (-15.0, 15.0))
true_t2, true_b1 = phantom.t2[brain], phantom.b1[brain]
show(
    phantom.affine,
    [
        ("B1", as_map(true_b1), map_kind("TB1map")),
        ("error of T2, exponential", as_map(exponential.params.t2 / true_t2 - 1), PERCENT),
        ("its reduced χ²", as_map(exponential.reduced_chi2), CHI2),
    ],
)

# %% [markdown]
# No truth was needed for the picture on the right, and it shows where the one in the middle is wrong. The standard
# errors do not: they say how well *this curve* is known, not that it is the right one.
#
# ## 4 An error budget: d(T2)/d(B1)
#
# The right model is `FSE` with a B1 map. It makes T2 depend on that map, and maps of B1 are rarely better than a few
# per cent. What does this do to T2? The usual answer is to fit again with another B1. The other one is to
# differentiate the fit.
#
# A fit is a search of many steps, but its derivative needs none of them. At the minimum *x* of the cost *C* the slope
# is zero whatever else changes, be it signal, B1 or echo times, all called *y*. The implicit function theorem then
# gives
#
# $$ \frac{\mathrm{d}x}{\mathrm{d}y} = -\left(\frac{\partial^2 C}{\partial x^2}\right)^{-1}
#    \frac{\partial^2 C}{\partial x\, \partial y}, $$
#
# one small linear system per voxel. `jax.jvp` of a function that contains `jq.fit` does just that. The direction that
# it is given is 1 % of B1, so the answer is the change of T2 per per cent.

# %%
b1, t1 = jnp.asarray(true_b1, jnp.float32), jnp.ones(signal.shape[0])  # T1 is not known: 1 s is assumed


def fitted_t2(b1, t1):
    result = jq.fit(train, signal, known={"b1": b1, "t1": t1}, noise=jq.Gaussian(train_level.sigma))
    return result.params.t2, result


def with_change(b1, t1, b1_change, t1_change):
    """T2, its change to first order [s], and the whole result of the fit."""
    changes = jnp.asarray(b1_change), jnp.asarray(t1_change)
    return jax.jvp(fitted_t2, (b1, t1), changes, has_aux=True)


nothing = jnp.zeros_like(b1)
t2, per_percent, result = with_change(b1, t1, 0.01 * b1, nothing)
solid = true_t2 < 0.5  # s; 144 ms of echoes say little about the T2 of fluid
too_high = np.mean(result.reduced_chi2 > limit)
print(f"With the B1 map, {too_high:.1%} of the voxels have a reduced χ² above {limit:.2f}.")

higher, *_ = with_change(1.01 * b1, t1, 0.01 * b1, nothing)
lower, *_ = with_change(0.99 * b1, t1, 0.01 * b1, nothing)
refitted, central = np.asarray(higher - t2), np.asarray(higher - lower) / 2

assert abs(too_high - 0.05) < 0.015
assert np.all(result.status == jq.Status.OK)
assert np.abs(central - per_percent)[solid].max() < 0.01e-3  # s

# %%
PER_PERCENT = style_of("T2 per B1", "ms / %", 1e3, "vik", (-1.0, 1.0))
show(
    phantom.affine,
    [
        ("T2", as_map(t2), map_kind("T2map")),
        ("by derivative", as_map(np.where(solid, per_percent, np.nan)), PER_PERCENT),
        ("by refitting, B1 + 1 %", as_map(np.where(solid, refitted, np.nan)), PER_PERCENT),
    ],
)

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.5))
colours = dict(zip(("cortex", "white matter", "putamen", "microbleed"), (BLUE, ORANGE, GREEN, PINK), strict=True))
for label, region in REGIONS.items():
    inside = (phantom.labels[brain] == label) & solid
    if inside.any():
        style = {"color": colours[region.name], "markersize": 1.5, "rasterized": True}
        left.plot(1e3 * per_percent[inside], 1e3 * refitted[inside], ".", **style)
        right.plot(true_b1[inside], 1e3 * per_percent[inside], ".", **style, label=region.name)
span = 1e3 * np.array([per_percent[solid].min(), per_percent[solid].max()])
left.plot(span, span, color="#b0b0b0", linewidth=0.6)
left.set(xlabel="derivative [ms per % of B1]", ylabel="refitted with B1 + 1 % [ms]")
right.axhline(0, color="#b0b0b0", linewidth=0.6)
right.set(xlabel="B1", ylabel="derivative [ms per % of B1]")
right.legend(frameon=False, markerscale=5)
plt.tight_layout()
plt.show()

worst = [1e3 * np.abs(change - per_percent)[solid].max() for change in (refitted, central)]
print(f"largest distance from the derivative: {worst[0]:.3f} ms refitted at + 1 %, {worst[1]:.4f} ms at ± 1 %")

# %% [markdown]
# The two agree. What is left is the curvature, which a step of 1 % sees and a derivative does not; between + 1 % and
# − 1 % it cancels. Where B1 is 1 the pulses are perfect, and to first order nothing depends on B1.
#
# The derivatives by B1 and by T1 make an error budget, to be set beside the noise. Suppose B1 is known to 5 %, and T1
# was taken for 1 s and may well be 30 % off:

# %%
_, by_t1, _ = with_change(b1, t1, nothing, 0.30 * t1)
from_noise, from_b1, from_t1 = (1e3 * np.abs(error) for error in (result.stderr.t2, 5 * per_percent, by_t1))

rows = []
for label, region in REGIONS.items():
    inside = (phantom.labels[brain] == label) & solid
    if inside.any():
        budget = [np.sqrt(np.mean(np.square(error[inside]))) for error in (from_noise, from_b1, from_t1)]
        rows.append([region.name, f"{1e3 * region.t2:.0f}", *(f"{error:.2f}" for error in budget)])

MS, TIMES = style_of("error", "ms", 1.0, "acton", (0.0, 5.0)), style_of("ratio", "", 1.0, "vik", (0.0, 2.0))
shown = np.where(solid, 1, np.nan)
show(
    phantom.affine,
    [
        ("noise", as_map(shown * from_noise), MS),
        ("B1 off by 5 %", as_map(shown * from_b1), MS),
        ("B1 over noise", as_map(shown * from_b1 / from_noise), TIMES),
    ],
)
table(["RMS error of T2 [ms]", "T2", "noise", "B1 off by 5 %", "T1 off by 30 %"], rows)

# %% [markdown]
# In white matter noise is the larger error, in the cortex, where B1 is lowest, that of B1 is. And only noise gets
# smaller in the mean over a region, since a B1 map that is off in one voxel is off in its neighbours, too. T1, on the
# other hand, was taken for 1 s in all tissues, and hardly matters.
#
# ## 5 Designing a protocol
#
# T1 from spoiled gradient echoes at variable flip angles (VFA): four images, TR 10 ms. Which four angles? The
# Cramér–Rao bound says what any choice is worth before anything is measured, from the derivatives of the model:
#
# $$ \mathrm{SD}(T_1) \ge \sigma \sqrt{\left[(J^\top J)^{-1}\right]_{T_1 T_1}} $$
#
# It is made of derivatives, and JAX differentiates it once more: `jax.grad` tells how the bound changes with each
# angle, and an optimiser of [optax](https://optax.readthedocs.io) walks downhill. The aim is the mean relative SD over
# T1 = 0.8, 1.1 and 1.5 s. The first start is a protocol of evenly spaced angles; `jax.vmap` runs 31 random starts
# along with it.

# %%
TR, VFA_NOISE = 0.010, 0.001  # s; noise, M0 = 1
T1S = jnp.array([0.8, 1.1, 1.5])  # s


def relative_sd(flip_angles, t1):
    """Cramér–Rao bound of T1 over T1; (J'J)^-1 of a 2 x 2 matrix, from the slopes by m0 and by t1."""
    slopes = jax.jacfwd(jq.SpoiledGradientEcho(flip_angles, TR))(jq.Tissue(m0=1.0, t1=t1))
    a, b = slopes.m0, slopes.t1 * t1
    return VFA_NOISE * jnp.sqrt(a @ a / ((a @ a) * (b @ b) - (a @ b) ** 2))


bound = jax.jit(jax.vmap(relative_sd, (None, 0)))  # for many T1
adam = optax.adam(0.005)


@jax.jit
def improve(starts, t1s):
    """300 steps downhill: (start, angle) angles, and aims, slopes and angles before each step."""
    aim_and_slope = jax.vmap(jax.value_and_grad(lambda angles: jnp.mean(bound(angles, t1s))))

    def step(state, _):
        angles, memory = state
        aims, slopes = aim_and_slope(angles)
        updates, memory = adam.update(slopes, memory)
        return (optax.apply_updates(angles, updates), memory), (aims, slopes, angles)

    (angles, _), path = jax.lax.scan(step, (starts, adam.init(starts)), length=300)
    return angles, path


def degrees(angles):
    return ", ".join(f"{angle:.1f}" for angle in np.sort(np.rad2deg(angles))) + " degrees"


even = np.deg2rad([5.0, 10.0, 15.0, 20.0])
starts = jnp.asarray(np.vstack([even, np.deg2rad(rng.uniform(2.0, 40.0, (31, 4)))]), jnp.float32)
ends, (aims, slopes, path) = improve(starts, T1S)
lowest = aims[-1] < 1.001 * aims[-1].min()
best = int(np.argmin(np.where(lowest, aims[0], np.inf)))  # many get there; the one that began lowest

print("slopes at the even angles:", np.round(100 * np.deg2rad(slopes[0, 0]), 2), "% of T1 per degree")
for name, k in (("from the even angles", 0), ("from another start", best)):
    print(f"{name}: SD {aims[0, k]:.2%} -> {aims[-1, k]:.2%} at {degrees(ends[k])}")
assert aims[-1, best] < 0.95 * aims[-1, 0] < 0.85 * aims[0, 0]

_, (left, right) = plt.subplots(1, 2, figsize=(7.0, 2.4))
left.plot(100 * aims, color="#d8dde1", linewidth=0.6)
for k, colour, name in ((0, ORANGE, "even angles"), (best, BLUE, "best of 32 starts")):
    left.plot(100 * aims[:, k], color=colour, label=name)
    right.plot(np.rad2deg(path[:, k]), color=colour, linewidth=1)
left.set(xlabel="step", ylabel="bound of SD(T1) / T1 [%]", xlim=(0, 150), ylim=(2.8, 4.6))
left.legend(frameon=False)
right.set(xlabel="step", ylabel="flip angles [degrees]", xlim=(0, 150), ylim=(0, None))
plt.tight_layout()
plt.show()

# %% [markdown]
# Angles meet: two unknowns want two places, and images at the same angle are averages. From the even angles three go up
# and one goes down, a minimum, but not the lowest: two and two is better, and no gradient could have led there.
#
# The result is a known one. For a single T1, Deoni, Rutt and Peters ([Magn Reson Med 49:515
# (2003)](https://doi.org/10.1002/mrm.10407)) found the two angles at which the signal is 0.71 of its maximum, that of
# the Ernst angle. Asked for a single T1, the same program finds them. And does the prediction hold? 10 000 noisy
# voxels of each T1 are fitted, with the old angles and with the new ones; `fit` knows nothing of the bound.

# %%
for_one, (aims_for_one, *_) = improve(starts, jnp.full_like(T1S, 1.1))
pair = np.sort(for_one[int(np.argmin(aims_for_one[-1]))])
tissue = jq.Tissue(t1=1.1)
highest = jq.SpoiledGradientEcho(np.linspace(0.01, 0.5, 2000), TR)(tissue).max()
share = jq.SpoiledGradientEcho(pair, TR)(tissue) / highest
print(f"T1 = 1.1 s alone: {degrees(pair)}; signal over its maximum: {np.round(share, 3)}")
np.testing.assert_allclose(share, 0.71, atol=0.01)

better = ends[best]
rows, scatters, bounds = [], {}, {}
for name, angles in (("even", even), ("better", better)):
    vfa = jq.SpoiledGradientEcho(angles, TR)
    clean = np.asarray(jq.simulate(vfa, jq.Tissue(m0=1.0, t1=T1S)))[:, None, :]
    noisy = (clean + VFA_NOISE * rng.standard_normal((3, N, 4))).astype(np.float32)
    t1_found = np.asarray(jq.fit(vfa, noisy, batch_size=N).params.t1)
    scatters[name] = np.std(t1_found, axis=1) / T1S
    bounds[name] = np.asarray(bound(jnp.asarray(angles, jnp.float32), T1S))
    rows += [[degrees(angles), *(f"{100 * sd:.2f}" for sd in scatters[name])]]
    rows += [["bound", *(f"{100 * sd:.2f}" for sd in bounds[name])]]
    assert np.abs(scatters[name] / bounds[name] - 1).max() < 0.03

saved = np.mean(bounds["even"]) ** 2 / np.mean(bounds["better"]) ** 2
print(f"For the same SD, the even angles need {saved:.2f} times the averages.")
assert saved > 1.7
table(["SD of T1 [%]", *(f"T1 = {t1:.1f} s" for t1 in T1S)], rows)

# %% [markdown]
# ## 6 A fit inside a loss
#
# The derivative goes backwards, too: `jax.grad` and `jax.jacrev` give all derivatives of one number at once. Here of
# one voxel's T2\* by each of its 12 echo times, as if the scanner's clock were a little off, echo by echo.

# %%
voxel = jnp.asarray(repetitions[0])
times = jnp.asarray(te, jnp.float32)


def t2star_of(te):
    return jq.fit(jq.MonoExponential(te), voxel).params.t2


by_te = np.asarray(jax.jacrev(t2star_of)(times))

# A clock that starts late changes S0 alone; one that runs fast by 1 % makes T2* longer by 1 %.
np.testing.assert_allclose(by_te.sum(), 0, atol=1e-4)
np.testing.assert_allclose(by_te @ te, t2star[0], rtol=1e-4)

_, axes = plt.subplots(figsize=(4.6, 2.2))
axes.axhline(0, color="#b0b0b0", linewidth=0.6)
axes.bar(1e3 * te, by_te, width=2.5, color=BLUE)
axes.set(xlabel="echo time [ms]", ylabel="change of T2* per\ndelay of this echo [ms / ms]")
plt.show()

# %% [markdown]
# So a whole pipeline can stand inside a loss function. A last example: twelve tubes of known T1 stand in a circle
# in the scanner. The transmit field is not known; it is described by a level and two slopes, with which T1 is
# fitted. Which level and slopes make the fitted T1 those on the labels? The loss is the distance in T1, the
# fit is part of it, and its gradient by the three numbers comes out of `jax.value_and_grad`.

# %%
turn = 2 * np.pi * np.arange(12) / 12
places = jnp.asarray(np.stack([np.ones(12), np.cos(turn), np.sin(turn)]), jnp.float32)  # 1, x, y
labelled = jnp.geomspace(0.3, 1.8, 12)  # s
true_field = np.array([0.90, 0.06, -0.04])

vfa = jq.SpoiledGradientEcho(better, TR)
tubes = jq.Tissue(m0=1.0, t1=labelled, b1=true_field @ places)
measured = np.asarray(jq.simulate(vfa, tubes))[:, None, :] + VFA_NOISE * rng.standard_normal((12, 40, 4))
measured = jnp.asarray(measured, jnp.float32)  # 40 voxels in every tube


def fitted_t1(field):
    b1 = field @ places
    t1 = jq.fit(vfa, measured, known={"b1": b1[:, None]}).params.t1
    return jnp.mean(t1, axis=1)


@jax.jit
@jax.value_and_grad
def loss(field):
    return jnp.mean(jnp.log(fitted_t1(field) / labelled) ** 2)


descent = optax.adam(optax.cosine_decay_schedule(0.03, 80))
field = jnp.array([1.0, 0.0, 0.0])
memory, losses = descent.init(field), []
for _ in range(80):
    value, slope = loss(field)
    updates, memory = descent.update(slope, memory)
    field = optax.apply_updates(field, updates)
    losses.append(float(value))

print("field:", np.round(field, 4), "true:", true_field)
np.testing.assert_allclose(field, true_field, atol=0.005)

_, axes = plt.subplots(figsize=(4.6, 2.2))
axes.semilogy(100 * np.sqrt(losses), color=BLUE)
axes.set(xlabel="step", ylabel="RMS error of T1 [%]")
plt.show()

# %% [markdown]
# ## Where next
#
# * **Your own scan.** `jaxqmri t2star FOLDER -o OUT`, likewise `t2` and `t1`, write the standard errors beside the
#   maps. In Python, `jq.t2star_map(series, noise=jq.Rician(sigma))` takes the noise models of section 2.
# * **Other models.** All of this works with every `SignalModel`: `InversionRecovery`, `ComplexGradientEcho`, or
#   one of your own, a JAX function of one voxel.
# * **Known parameters.** `known=` holds any parameter at a number or a map, `init=` says where to start.
