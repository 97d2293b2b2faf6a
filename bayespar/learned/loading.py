"""Planners by name: shipped ones, and functions of a module or a file, which is run."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from ..errors import InvalidPlannerError
from ..planning.expert import Experts
from ..simulate.regret import PLANNERS
from ..validation import shown
from ..world import Family


def named_planner(name: str, family: Family, experts: Experts) -> Any:
    """What :func:`as_planner` takes, by name.

    Args:
        name: one of :data:`PLANNERS` but "oracle", or ``module:function`` or ``path/to/file.py:function``: loading
            runs the module's code. A function whose only argument is called ``family`` is called with the family and
            returns the planner; anything else is the planner.
        family: the worlds.
        experts: from :func:`solve_experts`.

    Raises:
        InvalidPlannerError: no such planner, module, file or function; loading failed; or "oracle", which knows the
            task and so is no function of the prompt.
    """
    if ":" not in name:
        if name == "oracle":
            raise InvalidPlannerError('planner = "oracle" knows the task; an audit is of what follows from a prompt')
        if name not in PLANNERS:
            ours = ", ".join(repr(n) for n in PLANNERS if n != "oracle")
            raise InvalidPlannerError(f"planner = {shown(name)}; give {ours}, or module:function, or file.py:function")
        return PLANNERS[name](family, experts, 0)
    place, _, attribute = name.rpartition(":")
    try:
        module = _run_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found: Any = getattr(module, attribute, None)
        made = found(family) if _makes_planners(found) else found
    except InvalidPlannerError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidPlannerError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error
    if made is None:
        raise InvalidPlannerError(f"{place} has no planner named {attribute!r}")
    return made


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise InvalidPlannerError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"_bayespar_planner_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _makes_planners(found: Any) -> bool:
    """Whether ``found`` is a function of one argument ``family``."""
    return inspect.isfunction(found) and list(inspect.signature(found).parameters) == ["family"]
