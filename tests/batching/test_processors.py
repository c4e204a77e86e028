"""No more threads than the process may use processors."""

import os

import pytest

from jaxqmri.batching import processors
from jaxqmri.batching.processors import n_processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_is_honoured():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert n_processors() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= n_processors() <= len(before)


@pytest.mark.parametrize(
    ("membership", "files", "quotas"),
    [
        ("0::/a/b\n",
         {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"}, [4.0, 1.5]),
        ("0::/\n", {}, []),
        ("3:memory:/x\n2:cpu,cpuacct:/x\n",
         {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, [0.5]),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)  # fmt: skip
def test_quotas_of_containers_are_read(tmp_path, monkeypatch, membership, files, quotas):
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(processors._quotas(tmp_path / "self", tmp_path)) == quotas
    monkeypatch.setattr(processors, "_quotas", lambda: iter(quotas))
    monkeypatch.setattr(processors, "_quota", processors._quota.__wrapped__)  # which remembers nothing
    assert n_processors() <= max(1, min(quotas, default=10_000) + 1)
