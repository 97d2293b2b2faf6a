"""Running checks on a function: deterministic ones by hypothesis, statistical ones by sequential tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.errors import Flaky, Unsatisfiable

from ..program import Program, as_family
from ..theory.verdict import Verdict
from ..world import Family
from .case import ROLES, AnswerError, Case, Estimator
from .check import Equation, ExactCheck, StatisticalCheck
from .checks import EXACT, STATISTICAL
from .checks.regret import Loop
from .checks.simulation import Joint
from .draws import Simulation
from .result import Report, Result
from .sequential import Sequential, sequential_test
from .strategies import families, prompts
from .worlds import LAYOUTS, Layout, large_family

EXAMPLES = 60
TOLERANCE = 1e-10
LARGEST_ENUMERATED = 10**5  # histories of an episode up to which experts are enumerated
_KINDS = ("ties", "near_ties", "fully_observed", "duplicated_tasks", "unreachable_states")
_SPECIAL = ({}, {}, {}, {}, *({kind: True} for kind in _KINDS))
_DEEP = Layout(2, 2, 2, 2, 4, 1)


def run_checks(
    *,
    posterior: Callable[..., Any] | None = None,
    state_posterior: Callable[..., Any] | None = None,
    next_observation: Callable[..., Any] | None = None,
    planner: Callable[..., Any] | None = None,
    log_evidence: Callable[..., Any] | None = None,
    sampler: Callable[..., Any] | None = None,
    kernel: Joint | None = None,
    loop: Loop | None = None,
    family: Family | Program | None = None,
    checks: Sequence[str] | None = None,
    examples: int = EXAMPLES,
    tolerance: float = TOLERANCE,
    alpha: float = 1e-3,
    resolution: float = 0.1,
    budget: int | None = None,
    key: int = 0,
    first_failure: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Check functions of yours against exact Bayes.

    Args:
        posterior: ``f(family, prompt) -> [Z]``, P(z | pt).
        state_posterior: ``f(family, prompt) -> [Z, S]``, P(z, s | pt).
        next_observation: ``f(family, prompt, subgoal) -> [O]``.
        planner: ``f(family, prompt) -> [G]``, BAIL.
        log_evidence: ``f(family, observations [N, H], subgoals [N, H-1]) -> [Z, N]``, nats.
        sampler: ``f(family, prompt, draws, key=int) -> [draws]``, task indices drawn from the posterior.
        kernel: a :class:`bayespar.testing.Joint`: a joint law and an MCMC kernel.
        loop: a :class:`bayespar.testing.Loop`: a planner acting online, and a bound on its regret.
        family: the only world that the functions know; by default they are called with many. Checks that call them
            with another world do not apply then.
        checks: names of checks; all that apply by default.
        examples: worlds and prompts that an exact check tries.
        tolerance: the largest error of an exact identity; 1e-10 suits float64, 1e-4 float32.
        alpha: false-alarm level of each statistical check.
        resolution: the smallest deviation (of a probability) that a statistical check must not miss.
        budget: the most draws of a statistical check; by default what the resolution needs.
        key: every random choice follows from it.
        first_failure: stop at the first check that fails.
        progress: called with a check's name, the draws so far and the budget.

    Returns:
        One result for each check of each function, cheapest check first.

    Raises:
        ValueError: no function, or no such check.
    """
    given = {
        "posterior": posterior, "state_posterior": state_posterior, "next_observation": next_observation,
        "planner": planner, "log_evidence": log_evidence, "sampler": sampler, "kernel": kernel, "loop": loop,
    }  # fmt: skip
    given = {role: function for role, function in given.items() if function is not None}
    if not given:
        raise ValueError("give a function to check, e.g. run_checks(posterior=my_posterior)")
    known = [check.name for check in (*EXACT, *STATISTICAL)]
    for name in checks or ():
        if name not in known:
            raise ValueError(f"there is no check {name!r}; the checks are {', '.join(known)}")
    world = None if family is None else as_family(family)
    results = []
    for role, function in given.items():
        for check in (*EXACT, *STATISTICAL):
            if role not in check.roles or (checks is not None and check.name not in checks):
                continue
            if isinstance(check, ExactCheck):
                result = run_exact(
                    check, Estimator(role, function), family=world, examples=examples, tolerance=tolerance, key=key
                )
            else:
                result = run_statistical(
                    check, role, function, family=world, alpha=alpha, resolution=resolution, budget=budget, key=key,
                    progress=progress,
                )  # fmt: skip
            results.append(result)
            if first_failure and Report((result,)).failures:
                return Report(tuple(results))
    return Report(tuple(results))


def assert_correct(**arguments: Any) -> None:
    """:func:`run_checks`, for a test: fails with the first property that does not hold, where and by how much.

    Exact checks shrink what they find, so the message shows the smallest world and prompt found, as source.

    Args:
        arguments: those of :func:`run_checks`.

    Raises:
        AssertionError: a check was refuted, or a statistical one stayed inconclusive.
    """
    __tracebackhide__ = True  # pytest then points at the test
    for result in run_checks(**arguments, first_failure=True).failures:
        raise AssertionError(result.detail)


class Violated(Exception):
    """A case in which an equation does not hold, or a function raised an error."""

    def __init__(self, case: Case, found: Equation | AnswerError):
        super().__init__()
        self.case, self.found = case, found


def violation(check: ExactCheck, f: Estimator, case: Case, tolerance: float) -> Violated | None:
    """What of ``check`` does not hold in ``case``, if anything."""
    try:
        for equation in check.equations(f, case):
            if equation.error() > tolerance:
                return Violated(case, equation)
    except AnswerError as error:
        return Violated(case, error)
    return None


def run_exact(
    check: ExactCheck,
    f: Estimator,
    *,
    family: Family | None = None,
    examples: int = EXAMPLES,
    tolerance: float = TOLERANCE,
    key: int = 0,
    given: Sequence[Case] | None = None,
) -> Result:
    """One exact check on one function; arguments as in :func:`run_checks`.

    Args:
        given: try these cases, in order, instead of drawing some; nothing is shrunk then.
    """
    reason = _why_not(check, f.role, family)
    if reason:
        return Result(check.name, f.role, Verdict.NOT_APPLICABLE, reason)
    given = check.draw["fixed"](f.role) if given is None and "fixed" in check.draw else given
    tried = 0
    last: Violated | None = None

    def attempt(case: Case) -> None:
        nonlocal tried, last
        tried += last is None
        found = violation(check, f, case, tolerance)
        if found is not None:
            last = found
            raise found

    try:
        if given is None:
            _explore(cases(check, f.role, family), attempt, examples=examples, key=key, shrink=True)
        else:
            for case in given:
                attempt(case)
    except Violated as found:
        return _refuted(check, f, found, tried, tolerance)
    except Unsatisfiable:
        return Result(check.name, f.role, Verdict.NOT_APPLICABLE, "no prompt is impossible in this world")
    except Flaky:
        assert last is not None
        return _refuted(check, f, last, tried, tolerance, flaky=True)
    return Result(check.name, f.role, Verdict.SUPPORTED, check.documentation["property"], tried)


def collect(check: ExactCheck, role: str, *, examples: int = EXAMPLES, key: int = 0) -> list[Case]:
    """The cases that :func:`run_exact` tries on a function that passes."""
    if "fixed" in check.draw:
        return check.draw["fixed"](role)
    found: list[Case] = []

    def keep(case: Case) -> None:
        found.append(case)

    _explore(cases(check, role), keep, examples=examples, key=key, shrink=False)
    return found


def _explore(
    strategy: st.SearchStrategy[Case], attempt: Callable[[Case], None], *, examples: int, key: int, shrink: bool
) -> None:
    """Call ``attempt`` with cases that hypothesis draws."""
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])]
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=phases,
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    hypothesis.seed(key)(settings(hypothesis.given(strategy)(attempt)))()


@st.composite
def cases(draw: Any, check: ExactCheck, role: str, family: Family | None = None) -> Case:
    """Cases of an exact check: tiny worlds of every special kind, and prompts that the role and the check can use."""
    options = dict(check.draw)
    impossible = not options.get("possible", True)
    world: Any = family
    if world is None:
        layouts = [layout for layout in (*LAYOUTS, _DEEP) if layout.W > 1 or "instructions" not in options]
        special = draw(st.sampled_from(_SPECIAL))
        world = draw(families(layouts, zeros=draw(st.booleans()), deterministic=impossible, **special))
    decision = role in ("planner", "next_observation") or options.get("decision", False)
    # Longer histories twice, because there is more in them that may go wrong.
    steps = [*range(1, world.horizon), *range(2, world.horizon)] if decision else range(world.horizon + 1)
    least = max(options.get("least_episodes", 0), int(role == "log_evidence"))
    prompt = draw(
        prompts(
            world,
            episodes=max(options.get("episodes", 2), least),
            least_episodes=least,
            steps=[0] if role == "log_evidence" else list(steps),
            possible=not impossible,
        )
    )
    return Case(world, prompt, draw(st.integers(0, 11)))


def _why_not(check: ExactCheck, role: str, family: Family | None) -> str:
    """Why a check says nothing about a function that knows ``family`` alone; empty if it does."""
    if family is None:
        return ""
    if check.changes_world or "fixed" in check.draw:
        return f"{check.name} calls the function with another world"
    if "instructions" in check.draw and family.num_instructions == 1:
        return "there is one instruction"
    if (role in ("planner", "next_observation") or check.draw.get("decision")) and family.horizon == 1:
        return "the horizon is 1: there is no decision"
    histories = (family.num_subgoals * family.num_observations) ** family.horizon
    if role == "planner" and check.name in ("agreement", "log-loss") and histories > LARGEST_ENUMERATED:
        return f"{histories:,} histories are too many to enumerate experts on"
    if check.name == "normalised" and family.num_observations**family.horizon > LARGEST_ENUMERATED:
        return "there are too many observation sequences"
    return ""


def _refuted(
    check: ExactCheck, f: Estimator, found: Violated, tried: int, tolerance: float, *, flaky: bool = False
) -> Result:
    lines = [f"{f.role}: the {check.name} check fails. {check.documentation['property']}", ""]
    if isinstance(found.found, AnswerError):
        lines.append(f"  {found.found}")
    else:
        left, a, right, b = found.found
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        with np.errstate(invalid="ignore"):
            worst = np.unravel_index(np.argmax(np.where(a == b, 0, np.nan_to_num(abs(a - b), nan=np.inf))), a.shape)
        place = f" at {[int(i) for i in worst]}" if a.ndim else ""
        with np.printoptions(precision=12, suppress=True, threshold=60):
            lines += [
                f"  {left}:\n    {str(a).replace(chr(10), chr(10) + '    ')}",
                f"  {right}:\n    {str(b).replace(chr(10), chr(10) + '    ')}",
                f"  largest difference {found.found.error():.3g}{place}, allowed {tolerance:.0e}",
            ]
    if flaky:
        lines.append("  (called again with the same input, the function gave another answer)")
    lines += ["", "The smallest world and prompt found, as source (import bayespar as bp):", repr(found.case)]
    detail = "\n".join(lines)
    return Result(check.name, f.role, Verdict.REFUTED, detail, tried, found.case)


def run_statistical(
    check: StatisticalCheck,
    role: str,
    function: Any,
    *,
    family: Family | None = None,
    alpha: float = 1e-3,
    resolution: float = 0.1,
    budget: int | None = None,
    key: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """One statistical check on one function; arguments as in :func:`run_checks`."""
    subject = Estimator(role, function) if role in ROLES else function
    world = Simulation(large_family() if family is None else family)
    rng = np.random.default_rng(key)
    try:
        test = sequential_test(
            lambda count: check.statistics(subject, world, rng, count),
            alpha=alpha,
            resolution=resolution,
            one_sided=check.one_sided,
            budget=budget,
            progress=None if progress is None else lambda done, limit: progress(check.name, done, limit),
        )
    except AnswerError as error:
        detail = f"{role}: the {check.name} check fails: {error}"
        return Result(check.name, role, Verdict.REFUTED, detail)
    return Result(check.name, role, test.verdict, _said(check, role, test), test.draws, test=test)


def _said(check: StatisticalCheck, role: str, test: Sequential) -> str:
    plan = test.plan
    away = test.means if check.one_sided else np.abs(test.means)
    worst = int(np.argmax(away - test.half_widths))
    claim = "at most 0" if check.one_sided else "0"
    return (
        f"{role}: the {check.name} check is {test.verdict}. {check.documentation['property']}\n\n"
        f"  statistic {worst} of {plan.statistics} should have mean {claim}; over {test.draws:,} draws it has "
        f"{test.means[worst]:+.4f} (interval ±{test.half_widths[worst]:.4f})\n"
        f"  e-value against all means being 0: {test.e_value:.3g}; refuted at {1 / plan.alpha:,.0f}, so that a right "
        f"function is refuted with probability at most {plan.alpha:g}\n"
        f"  a mean of {plan.resolution:g} is missed with probability at most {1 - plan.power:g}"
    )
