"""What `jaxqmri doctor` tells of this installation: versions, devices, extras, codecs and caches."""

import importlib.util
import platform
from collections.abc import Mapping
from typing import Any

import jax

from ..batching.compiled import kept_in
from ..batching.processors import n_processors
from ..datasets import cache_dir
from .provenance import version_of, versions

CODECS = {"libjpeg": "JPEG, JPEG-LS", "openjpeg": "JPEG 2000", "rle": "RLE, fast", "gdcm": "all of them"}
EXTRAS = {  # what pip install "jaxqmri[...]" adds -> the packages that come with it
    "dicom-codecs": ("pylibjpeg-libjpeg", "pylibjpeg-openjpeg"),
    "cuda12": ("jax-cuda12-plugin",),
    "cuda13": ("jax-cuda13-plugin",),
    "tpu": ("libtpu",),
}


def installation() -> dict[str, Any]:
    """Versions, devices, precision, extras, DICOM codecs and the data cache; a broken device is a fact, no error."""
    folder = kept_in()
    try:
        devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
        backend, device_error = jax.default_backend(), None
    except RuntimeError as error:
        devices, backend, device_error = [], None, " ".join(str(error).split())
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "n_processors": n_processors(),
        "jax_backend": backend,
        "devices": devices,
        "device_error": device_error,
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "extras": {extra: all(map(version_of, packages)) for extra, packages in EXTRAS.items()},
        "dicom_codecs": [name for name in CODECS if importlib.util.find_spec(name)],
        "data_cache": str(cache_dir()),
        "compiled_programs": None if folder is None else str(folder),
    }


def installation_text(facts: Mapping[str, Any]) -> str:
    """`installation` for people, one fact a line."""
    codecs = [f"{name} ({CODECS[name]})" for name in facts["dicom_codecs"]]
    missing = [name for name, there in facts["extras"].items() if not there]
    rows = {
        **facts["versions"],
        "platform": facts["platform"],
        "processors": facts["n_processors"],
        "JAX backend": facts["jax_backend"] or f"none: {facts['device_error']}",
        "devices": ", ".join(facts["devices"]) or "none",
        "float64": "on (JAX_ENABLE_X64)" if facts["x64"] else "off (JAX_ENABLE_X64)",
        "DICOM codecs": ", ".join(codecs) or "none beyond pydicom's own (uncompressed, deflated, RLE)",
        "extras": ", ".join(name for name in facts["extras"] if name not in missing) or "none installed",
        "extras missing": ", ".join(missing) + ' (pip install "jaxqmri[NAME]")' if missing else "none",
        "data cache": facts["data_cache"],
        "compiled": facts["compiled_programs"] or "not kept (JAX_ENABLE_COMPILATION_CACHE)",
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())
