"""Errands in a flat of four rooms: a parcel lies on one of four tables, and one of the four doors is blocked.

The flat is a grid. Two walls that cross in its middle make four rooms, each arm of the cross has a door, and the parcel
is to be handed over at the front door, in the hall, or at the back door, in the study. A walker begins at the front
door. At every low-level step it moves to a neighbouring cell or uses its hands, which take a parcel from a table and
hand it over at a door; each of these fails with a small probability, and then nothing changes. The Planner says where
to go. The Actor of that subgoal knows the flat as it was built, with every door open, and believes that its hands are
needed where it is sent; for that it is optimal. So it uses its hands in vain at an empty table, and before a blocked
door it stands until the Planner sends it another way. From the front door, the way to the study table leads through the
bedroom and the way to the back door through the kitchen: both ways round are open to the Planner.

The task is where the parcel lies and which door is blocked. The Reporter sees what the walker carries, and where it is
if it has reached a table or a door; else it says that the walker is on the way. On a table it may overlook a parcel, or
take something else for one. There is time for three subgoals: two suffice where the parcel is known and the way is
free, and coming with the third pays a little less.

Source: made for this toolkit, as an example of theory.md, section 1 (low level).
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON = 4
ROOMS = ["kitchen", "study", "hall", "bedroom"]  # north-west, north-east, south-west, south-east
DOORS = ["kitchen-hall", "kitchen-study", "study-bedroom", "hall-bedroom"]
TABLES, EXITS = [f"{room} table" for room in ROOMS], ["front door", "back door"]
MOVES = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
ACTIONS = [*MOVES, "use hands"]
SIGHTS, HANDS = ["a parcel, it seems", "no parcel", "parcel in hand"], ["empty-handed", "parcel in hand"]
SEEN = {True: [0.8, 0.2, 0.0], False: [0.1, 0.9, 0.0]}  # at a table with the parcel on it, and without
HANDED_OVER = "the parcel is handed over"
OBSERVATIONS = [f"at the {table}: {sight}" for table in TABLES for sight in SIGHTS]
WHERE = [*(f"at the {door}" for door in EXITS), "on the way"]
OBSERVATIONS += [*(f"{where}, {hands}" for where in WHERE for hands in HANDS), HANDED_OVER]


class Flat:
    """The floor plan; places are (row, column), from the north-west. A state is (cell, carrying), or the last one."""

    def __init__(self, size):
        middle, near, last, far = size // 2, size // 7, size - 2, size - 1 - size // 7
        doors = [(middle, middle // 2), (near, middle), (middle, far), (last - near, middle)]
        tables = [(near, near), (middle - near, far), (middle + 2, near), (middle + 2, last - 1)]
        exits = [(last, middle // 2), (1, middle + near)]
        inside = [(row, column) for row in range(1, size - 1) for column in range(1, size - 1)]
        self.doors = dict(zip(DOORS, doors, strict=True))
        self.landmarks = dict(zip([*TABLES, *EXITS], [*tables, *exits], strict=True))
        self.cells = [cell for cell in inside if middle not in cell or cell in doors]
        self.states = [*((cell, carrying) for carrying in (False, True) for cell in self.cells), HANDED_OVER]

    def low_level(self, slip, steps, parcel, exits, blocked=None):
        """The low level with the parcel on that table, somebody to take it at these exits, and a door blocked."""

        def after(state, action):
            cell, carrying = state
            if action in MOVES:
                new = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
                return state if new == self.doors.get(blocked) else (new, carrying)
            if carrying and any(cell == self.landmarks[place] for place in exits):
                return HANDED_OVER
            return cell, carrying or cell == self.landmarks.get(parcel)

        index = {state: i for i, state in enumerate(self.states)}
        stay = np.tile(np.arange(len(index)), (len(ACTIONS), 1))
        done = stay.copy()  # a wall is no state: nothing changes then, nor once the errand is over
        for a, action in enumerate(ACTIONS):
            done[a, :-1] = [index.get(after(state, action), i) for i, state in enumerate(self.states[:-1])]
        kernel = bp.Sparse(np.stack([done, stay], axis=-1), np.tile([1 - slip, slip], (*stay.shape, 1)))
        names = [f"row {row}, column {column}, {HANDS[carrying]}" for (row, column), carrying in self.states[:-1]]
        return bp.LowLevel(kernel, steps=steps, states=[*names, HANDED_OVER], actions=ACTIONS)

    def emission(self, parcel):
        """What is said in each state, [S, O], with the parcel on that table."""
        said = np.zeros((len(self.states), len(OBSERVATIONS)))
        said[-1, -1] = 1
        names = {cell: name for name, cell in self.landmarks.items()}
        for row, (cell, carrying) in zip(said, self.states[:-1], strict=False):
            here = names.get(cell)
            if here in TABLES:
                seen = [0, 0, 1] if carrying else SEEN[here == parcel]
                row[[OBSERVATIONS.index(f"at the {here}: {sight}") for sight in SIGHTS]] = seen
            else:
                where = f"at the {here}" if here else "on the way"
                row[OBSERVATIONS.index(f"{where}, {HANDS[carrying]}")] = 1
        return said


@functools.cache
def built(size, slip, steps):
    """The flat as it was built, and the Actor of each landmark that is optimal for it."""
    flat, actors = Flat(size), []
    for place, goal in flat.landmarks.items():
        blueprint = flat.low_level(slip, steps, parcel=place, exits=[place])
        # To be there is good, and to have used one's hands there with success is better.
        actors.append(bp.optimal_actor(blueprint, [*(cell == goal for cell, _ in flat.states[:-1]), 2]))
    return flat, np.stack(actors)


def gridworld_errands(size: int = 15, slip: float = 0.2, steps: int | None = None) -> bp.World:
    """The program.

    Args:
        size: rows and columns of the grid, the outer walls included; odd.
        slip: the probability that a low-level step fails.
        steps: low-level steps that a subgoal lasts; 1.6 times the size by default.

    Raises:
        ValueError: the grid has no middle or no room for its tables, or ``slip`` is no probability below 1.
    """
    if size < 9 or size % 2 == 0:
        raise ValueError(f"size = {size}; give an odd number of at least 9, so that two walls can cross in the middle")
    if not 0 <= slip < 1:
        raise ValueError(f"slip = {slip}; give a probability below 1")
    steps = round(1.6 * size) if steps is None else steps
    flat, actors = built(size, slip, steps)
    parcel = TABLES[numpyro.sample("parcel", dist.Categorical(np.array([0.35, 0.3, 0.1, 0.25])))]
    blocked = DOORS[numpyro.sample("blocked", dist.Categorical(np.array([0.3, 0.25, 0.2, 0.25])))]

    reward = np.zeros((HORIZON, len(OBSERVATIONS)))
    reward[-2:, -1] = 0.1, 0.9  # what is handed over stays so: 1 in all after two subgoals, 0.9 after three

    return bp.World(
        np.eye(len(flat.states))[flat.states.index((flat.landmarks["front door"], False))],
        bp.TwoLevel(flat.low_level(slip, steps, parcel, EXITS, blocked), actors),
        flat.emission(parcel),
        reward,
        horizon=HORIZON,
        task=f"parcel on the {parcel}, {blocked} door blocked",
        subgoals=[f"go to the {place}" for place in flat.landmarks],
        observations=OBSERVATIONS,
        instructions=["bring the parcel to a door"],
    )
