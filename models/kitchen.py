"""A household in words: fetch a cup or a book for someone, with a Reporter that may be half asleep.

Every household has its habits: where the cup usually stands, where the book usually lies, how well the Reporter
looks. The habits are the task, and they stay for good; but each day both things may have been left elsewhere, so
that even an expert, who knows the habits, does not know where the cup is today. A Planner learns the habits from
its prompt, and slowly: it only hears reports, which overlook a thing or take one thing for the other (though
nobody reports a thing from an empty room).

A day has four decisions. The robot looks into a room, takes what it came for and brings it to someone: three
decisions, which leaves one to look elsewhere or to look again. A robot that reaches for a thing that is not there,
or drops it, is back in the hall with empty hands, too late to try again. Thanks from the right person for the right
thing pay 1, and a little less when they come late.

Source: made for this toolkit, as an example of theory.md, section 1.
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON = 5
ROOMS = ["kitchen", "pantry", "garden"]
THINGS = ["cup", "book"]
PEOPLE = ["Ada", "Ben"]
# Where there is something to see: how often a report is right, takes the one thing for the other, overlooks it.
REPORTS = {"wide-awake": [0.95, 0.01, 0.04], "sleepy": [0.6, 0.1, 0.3]}
STAYS = {"cup": 0.7, "book": 0.6}  # how often a thing is where it usually is
GRIP = {"cup": 0.9, "book": 0.95}  # how often taking it succeeds

CARRYING = [f"carrying the {thing}" for thing in THINGS]
STATES = [(place, f"cup in the {c}", f"book in the {b}") for place in ["hall", *ROOMS] for c in ROOMS for b in ROOMS]
STATES += [*CARRYING, *[f"{person} has the {thing}" for person in PEOPLE for thing in THINGS], "the day is over"]
SUBGOALS = [f"look in the {room}" for room in ROOMS]
SUBGOALS += [f"take the {thing}" for thing in THINGS] + [f"bring it to {person}" for person in PEOPLE]
SIGHTS = ["a cup, it seems", "a book, it seems", "nothing"]
THANKS = [f"{person} says thank you for the {thing}" for person in PEOPLE for thing in THINGS]
OBSERVATIONS = ["in the hall with empty hands", *[f"in the {room}: {sight}" for room in ROOMS for sight in SIGHTS]]
OBSERVATIONS += [*CARRYING, *THANKS, "the day is over"]
INSTRUCTIONS = {  # and the thanks that they hope for
    "bring Ada the cup": ["Ada says thank you for the cup"],
    "bring Ben the book": ["Ben says thank you for the book"],
    "bring Ada the cup or the book": ["Ada says thank you for the cup", "Ada says thank you for the book"],
}


def transition(state, subgoal):
    """Where a subgoal leads. No task changes this, so it is written once, outside the program."""
    verb, last = subgoal.split()[0], subgoal.split()[-1]
    if isinstance(state, tuple):
        place, *whereabouts = state
        if verb == "look":
            return (last, *whereabouts)
        here = verb == "take" and f"{last} in the {place}" in whereabouts
        if here and numpyro.sample("grip", dist.Bernoulli(GRIP[last])):
            return f"carrying the {last}"
        return ("hall", *whereabouts)
    if state in CARRYING:
        return f"{last} has the {state.split()[-1]}" if verb == "bring" else state
    return "the day is over"


@functools.cache
def emission_of(reporter):
    """What a Reporter of that kind says; cached, so that tasks with the same Reporter share it."""

    def emission(state):
        if isinstance(state, str):
            return state.replace("has the", "says thank you for the")
        place, *whereabouts = state
        if place == "hall":
            return "in the hall with empty hands"
        present = [thing for thing in THINGS if f"{thing} in the {place}" in whereabouts]
        if not present:
            return f"in the {place}: nothing"
        # Where both things are, the Reporter's eye falls on one of them.
        thing = present[numpyro.sample("glance", dist.DiscreteUniform(0, len(present) - 1))]
        other = "book" if thing == "cup" else "cup"
        said = numpyro.sample("report", dist.Categorical(np.array(REPORTS[reporter])))
        return f"in the {place}: " + [f"a {thing}, it seems", f"a {other}, it seems", "nothing"][said]

    return emission


def kitchen() -> bp.World:
    """The program."""
    cup = numpyro.sample("cup", dist.Categorical(np.array([0.5, 0.3, 0.2])))
    # The book is seldom kept where the cup is.
    book = numpyro.sample("book", dist.Categorical(np.where(np.arange(3) == cup, 0.2, 0.4)))
    reporter = list(REPORTS)[numpyro.sample("reporter", dist.Categorical(np.array([0.6, 0.4])))]

    def today(thing, home):
        odds = np.where(np.arange(3) == home, STAYS[thing], (1 - STAYS[thing]) / 2)
        return f"{thing} in the {ROOMS[numpyro.sample(f'{thing} today', dist.Categorical(odds))]}"

    def initial():
        return "hall", today("cup", cup), today("book", book)

    reward = np.zeros((HORIZON, len(OBSERVATIONS), len(INSTRUCTIONS)))
    for w, thanks in enumerate(INSTRUCTIONS.values()):
        reward[:, [OBSERVATIONS.index(words) for words in thanks], w] = 1
    reward[-1] *= 0.8  # thanks that come late

    return bp.World(
        initial,
        transition,
        emission_of(reporter),
        reward,
        horizon=HORIZON,
        task=f"cup in the {ROOMS[cup]}, book in the {ROOMS[book]}, {reporter} reporter",
        states=STATES,
        subgoals=SUBGOALS,
        observations=OBSERVATIONS,
        instructions=list(INSTRUCTIONS),
        instruction_prior=[0.4, 0.4, 0.2],
    )
