"""A policy in a terminal, in the world's own words."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from ..theory.figure import Branch, PolicyTree

_DEEPEST = 4  # alternations of observation and subgoal shown


def terminal_tree(policy: PolicyTree) -> Tree:
    """The likely part of a policy; what is deeper than two decisions is left out."""
    tree = Tree(Text(policy.title, style="bold"))
    for branch in policy.branches:
        _add(tree, branch, _DEEPEST)
    return tree


def _add(tree: Tree, branch: Branch, depth: int) -> None:
    words = Text(f"“{branch.words}”", style="italic") if branch.kind == "observation" else Text(f"→ {branch.words}")
    label = words if branch.probability > 1 - 1e-9 else Text.assemble(words, (f"  {branch.probability:.3f}", "dim"))
    node = tree.add(label)
    for child in branch.children if depth > 1 else ():
        _add(node, child, depth - 1)
    if depth == 1 and branch.children:
        node.add(Text("…", style="dim"))
