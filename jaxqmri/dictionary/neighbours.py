"""Orders atoms so that neighbours in the list are similar."""

from typing import Any

import numpy as np

LEAF = 64  # atoms


def neighbours_together(atoms: Any) -> np.ndarray:
    """Order of the atoms in which each run of 64 is a small region of signals (a k-d tree).

    Source: Bentley, Commun ACM 18:509 (1975), split at the median across the widest of the principal axes.
    """
    real = np.concatenate([atoms.real, atoms.imag], axis=1) if np.iscomplexobj(atoms) else atoms
    centred = real - real.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = centred @ axes[:, -8:]
    order = np.arange(len(atoms))
    todo = [(0, len(atoms))]
    while todo:
        start, stop = todo.pop()
        n_leaves = -(-(stop - start) // LEAF)
        if n_leaves < 2:
            continue
        some = order[start:stop]
        here = places[some]
        widest = np.argmax(np.var(here, axis=0))
        order[start:stop] = some[np.argsort(here[:, widest], kind="stable")]
        middle = start + n_leaves // 2 * LEAF
        todo += [(start, middle), (middle, stop)]
    return order
