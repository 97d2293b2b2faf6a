"""A crate that takes several workers to move, and customers whose bays the Planner must learn.

Each customer has a bay in the warehouse, and which one is the task. Every day brings an order, the instruction: "bring
Ada's crate" means something else than "bring Ben's crate", so a Planner must read it. All workers have to pull
in the same direction at once; if one of them slips or goes elsewhere, the crate stays where it is. The label on the
bay where the crate stands is read with errors. A day has two moves, so that a crate in a wrong bay can be
brought to a better one; in the evening the foreman reads the label once more, and what he reads is what counts.

The workers slip independently, but the crate couples them: its kernel is no product.

Source: made for this toolkit, as an example of theory.md, section 7.
"""

import itertools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

WORKERS = ["Wim", "Xenia", "Yuri", "Zoe"]
CUSTOMERS = ["Ada", "Ben"]
BAYS = ["north bay", "east bay", "south bay"]
STATES = ["crate at the gate", *[f"crate in the {bay}" for bay in BAYS]]
LABELS = [*CUSTOMERS, "nobody"]
OBSERVATIONS = ["crate at the gate", *[f"crate in the {bay}, labelled {name}" for bay in BAYS for name in LABELS]]
MISREAD = 0.1  # how often a label is taken for one of the other two


def warehouse(workers: int = 2, grip: float = 0.9) -> bp.World:
    """The program.

    Args:
        workers: K, from 2 to 4.
        grip: probability that a worker does not slip.

    Raises:
        ValueError: too few or too many workers, or ``grip`` is no probability.
    """
    if not 2 <= workers <= len(WORKERS) or not 0 <= grip <= 1:
        raise ValueError(f"warehouse has 2 to {len(WORKERS)} workers and grip in [0, 1]; got {workers} and {grip}")
    first = int(numpyro.sample("Ada's bay", dist.Categorical(np.array([0.6, 0.3, 0.1]))))  # one that she asked for
    second = int(numpyro.sample("Ben's bay", dist.Categorical((np.arange(3) != first) / 2)))
    label = {first: 0, second: 1}

    team = bp.Team({name: [f"pull to the {bay}" for bay in BAYS] for name in WORKERS[:workers]})
    transition = np.tile(np.eye(4), (len(team), 1, 1))
    for bay in range(3):  # what happens if all of them pull there
        transition[team.join([bay] * workers)] = (1 - grip**workers) * np.eye(4) + grip**workers * np.eye(4)[bay + 1]

    emission = np.zeros((len(STATES), len(OBSERVATIONS)))
    emission[0, 0] = 1
    for bay, read in itertools.product(range(3), range(3)):
        emission[1 + bay, 1 + 3 * bay + read] = 1 - MISREAD if read == label.get(bay, 2) else MISREAD / 2

    reward = np.zeros((3, len(OBSERVATIONS), len(CUSTOMERS)))
    for w, name in enumerate(CUSTOMERS):
        reward[-1, [words.endswith(f"labelled {name}") for words in OBSERVATIONS], w] = 1

    return bp.World(
        [1.0, 0.0, 0.0, 0.0],
        transition,
        emission,
        reward,
        horizon=3,
        task=f"Ada has the {BAYS[first]}, Ben the {BAYS[second]}",
        states=STATES,
        subgoals=team,
        observations=OBSERVATIONS,
        instructions=[f"bring {name}'s crate" for name in CUSTOMERS],
    )
