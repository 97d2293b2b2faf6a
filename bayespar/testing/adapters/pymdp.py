"""A pymdp agent as posterior and planner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ...history import Prompt
from ...world import Family


class PymdpRoles(NamedTuple):
    """``posterior(family, prompt) -> [Z]``, ``state_posterior(family, prompt) -> [Z, S]`` and
    ``planner(family, prompt) -> [G]``, all float64."""

    posterior: Callable[[Family, Prompt], np.ndarray]
    state_posterior: Callable[[Family, Prompt], np.ndarray]
    planner: Callable[[Family, Prompt], np.ndarray]


def from_pymdp(joint: bool = True, **options: Any) -> PymdpRoles:
    """Three roles from ``pymdp.agent.Agent`` (pymdp 1.x), which filters one observation at a time, in float64.

    The agent hears the observation, ``infer_states`` updates its belief, and ``update_empirical_prior`` moves it on
    by the subgoal. When an episode ends, the belief over tasks is kept and the state starts afresh from each task's
    initial law.

    Args:
        joint: True gives the agent one hidden factor, the Z S pairs (task, state), for which pymdp's update is
            Bayes' rule. False gives it two factors, the task and the state, which is how one would write it in
            pymdp; its belief is then a product of two marginals (mean field), an approximation by design, and the
            initial law of the state must be shared by all tasks.
        options: of the agent, e.g. ``inference_algo="exact"``, ``num_iter``, ``gamma``, ``use_states_info_gain``.

    Returns:
        The three roles. ``planner`` is pymdp's own way to plan: preferences C are the rewards of the steps that are
        left, under the current instruction; policies are all sequences of the subgoals that are left, G^(H-h) of
        them, and its [G] is the agent's distribution over them summed up by their first subgoal. It is a softmax of
        *open-loop* values (and, unless switched off, of information gain), so neither an expert nor BAIL. Impossible
        evidence gives what pymdp gives: see docs/real-bugs.md.

    Raises:
        ImportError: pymdp is missing.
        ValueError: (when called) a planner is asked with no decision left, or to plan over more than one step with
            kernels that differ between steps; or ``joint=False`` with an initial law for each task.

    Example::

        posterior, state_posterior, planner = from_pymdp()
        posterior(family, bp.Prompt(current_observations=[0, 1], current_subgoals=[1]))
    """
    try:
        from pymdp.agent import Agent  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("from_pymdp needs pymdp 1.x: pip install inferactively-pymdp") from error

    def make(family: Family, step: int, prior: np.ndarray, **more: Any) -> Any:
        """The agent at one step, whose belief before the observation is ``prior`` [Z, S]."""
        Z, S, G = family.num_tasks, family.num_states, family.num_subgoals
        emission = np.broadcast_to(np.asarray(family.emission, np.float64), (Z, S, family.num_observations))
        kernel = np.asarray(family.dense_transition(), np.float64)
        kernel = np.broadcast_to(kernel[:, min(step, kernel.shape[1] - 1)], (Z, G, S, S))
        to_from = kernel.transpose(3, 0, 2, 1)  # [S', Z, S, G]: pymdp's matrices have columns that sum to 1
        if joint:
            pairs = np.einsum("yz,tzsg->yztsg", np.eye(Z), to_from).transpose(0, 2, 1, 3, 4)
            arrays = {"A": [emission.transpose(2, 0, 1).reshape(-1, Z * S)], "B": [pairs.reshape(Z * S, Z * S, G)]}
            arrays["D"] = [prior.reshape(-1)]
        else:
            stay = np.repeat(np.eye(Z)[:, :, None], G, axis=2)
            arrays = {"A": [emission.transpose(2, 0, 1)], "B": [stay, to_from]}
            arrays["D"] = [prior.sum(axis=1), prior.sum(axis=0)]
            more |= {"A_dependencies": [[0, 1]], "B_dependencies": [[0], [0, 1]]}
        arrays = jax.tree.map(jax.numpy.asarray, arrays)
        return Agent(**arrays, **(options | more))

    def start(family: Family, tasks: np.ndarray) -> np.ndarray:
        initial = np.asarray(family.initial, np.float64)
        if not joint and len(initial) > 1 and (initial != initial[0]).any():
            raise ValueError("joint=False needs an initial law of the state that all tasks share")
        return tasks[:, None] * np.broadcast_to(initial, (len(tasks), initial.shape[1]))

    def as_pairs(family: Family, belief: Any) -> np.ndarray:
        """pymdp's list of factors, each [1, ...], as [Z, S]."""
        factors = [np.asarray(b, np.float64).reshape(-1) for b in belief]
        return factors[0].reshape(family.num_tasks, -1) if joint else np.outer(*factors)

    def listen(family: Family, prior: np.ndarray, observations: Any, subgoals: Any) -> tuple[np.ndarray, Any, Any]:
        """The belief [Z, S] after an episode so far, with the agent and its own form of that belief."""
        belief, agent, heard = prior, None, None
        for h, o in enumerate(observations):
            agent = make(family, h, belief)
            heard = agent.infer_states([jax.numpy.asarray([int(o)])], agent.D)
            belief = as_pairs(family, heard)
            if h < len(subgoals):
                action = jax.numpy.full((1, len(agent.B)), int(subgoals[h]))
                if not joint:
                    action = action.at[0, 0].set(0)
                belief = as_pairs(family, agent.update_empirical_prior(action, heard))
        return belief, agent, heard

    def state_posterior(family: Family, prompt: Prompt) -> np.ndarray:
        with jax.enable_x64(True):
            belief = start(family, np.asarray(family.task_prior, np.float64))
            for o, g in zip(prompt.observations, prompt.subgoals, strict=True):
                belief = start(family, listen(family, belief, o, g)[0].sum(axis=1))
            return listen(family, belief, prompt.current_observations, prompt.current_subgoals)[0]

    def posterior(family: Family, prompt: Prompt) -> np.ndarray:
        return state_posterior(family, prompt).sum(axis=1)

    def planner(family: Family, prompt: Prompt) -> np.ndarray:
        h, left = prompt.step, family.horizon - prompt.step
        if h == 0 or left == 0:
            raise ValueError(f"after {h} of {family.horizon} observations there is no subgoal to choose")
        if left > 1 and family.transition.shape[1] > 1:
            raise ValueError("pymdp plans with one transition kernel, but those of this family differ between steps")
        reward = np.asarray(family.reward, np.float64)[h:, :, int(prompt.current_instruction)]
        belief = state_posterior(family, prompt)
        with jax.enable_x64(True):
            sequences = np.indices((family.num_subgoals,) * left).reshape(left, -1).T  # [G^left, left]
            policies = np.stack([sequences] if joint else [0 * sequences, sequences], axis=-1)
            agent = make(family, h - 1, belief, C=[jax.numpy.asarray(reward)], policy_len=left, policies=policies)
            weights, _ = agent.infer_policies([d[:, None] for d in agent.D])
        chosen = np.asarray(weights, np.float64)[0]
        return np.bincount(sequences[:, 0], weights=chosen, minlength=family.num_subgoals)

    return PymdpRoles(posterior, state_posterior, planner)
