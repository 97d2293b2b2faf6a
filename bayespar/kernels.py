"""What dynamic programming on the host asks of a transition kernel, in float64: beliefs forward, values back."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from .factored import Factored
from .world import Family


class HostKernel:
    """The transition of a family; a factored one stays factored."""

    def __init__(self, family: Family):
        kernel = family.transition
        factors = kernel.factors if isinstance(kernel, Factored) else (family.dense_transition(),)
        self.factors = [np.asarray(f, np.float64) for f in factors]

    def push(self, task: int, step: int, belief: Float[np.ndarray, "m S"]) -> Float[np.ndarray, "m G S"]:
        """The law of the next state, from each belief, after each subgoal: sum_s b(s) P_z(s' | s, g)."""
        m, S = belief.shape
        # Axes: belief; subgoals and next states of the Actors done; the one at hand; states of those to come.
        out = belief.reshape(m, 1, 1, 1, S)
        for f in self._rows(task, step):
            G, n, _ = f.shape
            out = out.reshape(m, out.shape[1], out.shape[2], n, -1)
            out = np.einsum("mgtsr,asu->mgatur", out, f, optimize=len(self.factors) > 1)
            out = out.reshape(m, out.shape[1] * G, out.shape[3] * n, 1, -1)
        return out.reshape(m, -1, S)

    def pull(self, task: int, step: int, values: Float[np.ndarray, "S W"]) -> Float[np.ndarray, "S G W"]:
        """The expected value of the next state, in each state, after each subgoal: sum_s' P_z(s' | s, g) v(s')."""
        S, W = values.shape
        out = values.reshape(1, 1, S, W)
        for f in self._rows(task, step):
            G, n, _ = f.shape
            g, s, left, _ = out.shape
            out = np.einsum("gsurw,abu->sbgarw", out.reshape(g, s, n, left // n, W), f, optimize=True)
            out = np.moveaxis(out.reshape(s * n, g * G, left // n, W), 1, 0)
        return np.moveaxis(out.reshape(-1, S, W), 0, 1)

    def pull_each(self, step: int, values: Float[np.ndarray, "Z S W"]) -> Float[np.ndarray, "Z S G W"]:
        """:meth:`pull` for the values of every task: at once where the kernel is not factored."""
        if len(self.factors) > 1:
            return np.stack([self.pull(z, step, v) for z, v in enumerate(values)])
        (kernel,) = self.factors
        return np.moveaxis(kernel[:, min(step, kernel.shape[1] - 1)] @ values[:, None], 1, 2)

    def _rows(self, task: int, step: int) -> list[np.ndarray]:
        return [f[min(task, f.shape[0] - 1), min(step, f.shape[1] - 1)] for f in self.factors]

    @property
    def tasks(self) -> int:
        """1 if all tasks share the kernel."""
        return max(f.shape[0] for f in self.factors)

    @property
    def subgoals(self) -> int:
        """G."""
        return math.prod(f.shape[2] for f in self.factors)
