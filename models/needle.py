"""One button in many wins: the world on which executing BAIL alone has linear regret.

There are K buttons, and one of them, the task, wins. The Planner decides once: it presses a button, or it reads a
sign that names the winning button with probability q and otherwise any button at random. Reading pays nothing, so
no expert ever reads, and a Planner that imitates the experts never reads either. It presses one button after the
other, and each failure rules out a single task: its regret after T <= K episodes is T - T (T + 1) / (2K). One look
at the sign is worth more than many presses, which is why exploring pays here.

Four states are enough, because the text of the sign is in the emission. Buttons come before ``read the sign`` in
the list of subgoals, so that a tie never makes an expert read.

Source: theory.md, N1.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

STATES = ["at the panel", "won", "lost", "at the sign"]
PANEL, WON, LOST, SIGN = range(4)


def needle(tasks: int = 16, accuracy: float = 0.5) -> bp.World:
    """The program.

    Args:
        tasks: K, the number of buttons.
        accuracy: q, the probability that the sign is not a random guess.

    Raises:
        ValueError: there is no button.
    """
    if tasks < 1:
        raise ValueError(f"needle needs at least one button, but tasks = {tasks}")
    button = int(numpyro.sample("button", dist.DiscreteUniform(1, tasks)))

    next_states = np.tile(np.arange(4)[:, None], (tasks + 1, 1, 1))  # after the one decision, nothing moves
    next_states[:, PANEL] = LOST
    next_states[button - 1, PANEL] = WON
    next_states[tasks, PANEL] = SIGN

    emission = np.zeros((4, 3 + tasks))
    emission[[PANEL, WON, LOST], [0, 1, 2]] = 1
    emission[SIGN, 3:] = (1 - accuracy) / tasks
    emission[SIGN, 2 + button] += accuracy

    reward = np.zeros((2, 3 + tasks))
    reward[1, 1] = 1

    numbers = range(1, tasks + 1)
    return bp.World(
        [1.0, 0.0, 0.0, 0.0],
        bp.Sparse(next_states, np.ones(next_states.shape)),
        emission,
        reward,
        horizon=2,
        task=f"button {button} wins",
        states=STATES,
        subgoals=[f"press button {k}" for k in numbers] + ["read the sign"],
        observations=["a panel of buttons", "a bell rings", "a buzzer sounds"]
        + [f"the sign says {k}" for k in numbers],
        instructions=["make the bell ring"],
    )
