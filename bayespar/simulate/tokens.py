"""Prompts as tokens and as words: the columns of a corpus on disk. docs/corpora.md describes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import Int

from ..history import Prompt
from ..world import Family
from .corpus import Corpus
from .drawn_corpus import DrawnCorpus

STRUCTURE = ("<pad>", "<bos>", "<episode>", "<eos>")
"""Tokens that are no words of the world, with ids from 0."""


def vocabulary(family: Family) -> dict[str, Any]:
    """Every token id: the structure tokens, then the instructions, observations and subgoals of the family, in order.

    ``first`` has the id of the first of each kind, so that subgoal g is token ``first["subgoal"] + g``.
    """
    kinds = {"instruction": family.instructions, "observation": family.observations, "subgoal": family.subgoals}
    tokens = [{"kind": "structure", "word": word} for word in STRUCTURE]
    first = {}
    for kind, words in kinds.items():
        first[kind] = len(tokens)
        tokens += [{"kind": kind, "word": word} for word in words]
    return {"first": first, "tokens": [{"id": i, **token} for i, token in enumerate(tokens)]}


def token_ids(
    family: Family, corpus: Corpus | DrawnCorpus
) -> tuple[Int[np.ndarray, "B L"], Int[np.ndarray, " D"], Int[np.ndarray, " D"]]:
    """Prompts as tokens: ``<bos>``, for each episode ``<episode> w o_1 g_1 o_2 ... o_H``, and ``<eos>``.

    Returns:
        Token ids [B, 2 + N(2H+1)]; the positions of the observations after which a decision is made [N(H-1)]; and those
        of the subgoals that were executed there [N(H-1)].
    """
    first = vocabulary(family)["first"]
    (B, N), H = corpus.instructions.shape, family.horizon
    length = 2 * H + 1
    body = np.empty((B, N, length), np.int32)
    body[..., 0] = STRUCTURE.index("<episode>")
    body[..., 1] = first["instruction"] + corpus.instructions
    body[..., 2::2] = first["observation"] + corpus.observations
    body[..., 3::2] = first["subgoal"] + corpus.subgoals
    ends = [np.full((B, 1), STRUCTURE.index(end), np.int32) for end in ("<bos>", "<eos>")]
    decisions = (1 + length * np.arange(N)[:, None] + 2 + 2 * np.arange(H - 1)).reshape(-1).astype(np.int32)
    return np.concatenate([ends[0], body.reshape(B, -1), ends[1]], axis=1), decisions, decisions + 1


def corpus_table(corpus: Corpus | DrawnCorpus, family: Family, start: int) -> Any:
    """A pyarrow table with a row a prompt, the first of which is number ``start``."""
    import pyarrow as pa

    B, D = corpus.instructions.shape[0], corpus.labels[0].size
    tokens, decisions, executed = token_ids(family, corpus)
    labels = corpus.labels.reshape(B, D)
    columns: dict[str, Any] = {"prompt": pa.array(np.arange(start, start + B))}
    if isinstance(corpus, Corpus):
        columns["task"] = pa.array(corpus.tasks)
        columns["task_name"] = pa.array([family.tasks[z] for z in corpus.tasks])
    else:
        columns["sites"] = pa.array([json.dumps(_plain(corpus.task(b)), ensure_ascii=False) for b in range(B)])
    columns["text"] = pa.array(_texts(corpus, family))
    columns["token_ids"] = _lists(tokens)
    columns["label_positions"] = _lists(np.broadcast_to(decisions, (B, D)))
    columns["subgoal_positions"] = _lists(np.broadcast_to(executed, (B, D)))
    columns["labels"] = _lists(labels)
    columns["label_words"] = pa.array(np.array(family.subgoals, object)[labels].tolist(), pa.list_(pa.string()))
    if isinstance(corpus, Corpus):
        for name, size in (("bail", family.num_subgoals), ("next_observation", family.num_observations)):
            columns[name] = _lists(getattr(corpus, name).reshape(B, D, size).astype(np.float64))
    return pa.table(columns)


def _lists(array: np.ndarray) -> Any:
    """An array [B, ...] as a column of lists, nested as the array is."""
    import pyarrow as pa

    column = pa.array(np.ascontiguousarray(array).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        count = int(np.prod(array.shape[:axis]))
        offsets = np.arange(count + 1, dtype=np.int32) * array.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def _texts(corpus: Corpus | DrawnCorpus, family: Family) -> list[str]:
    """Prompts as :meth:`Prompt.to_text` writes them; the last episode, which is complete too, is the one that is "now".

    Every episode is written once, however often it occurs.
    """
    bodies: dict[Any, str] = {}

    def block(n: int, last: bool, w: int, o: list[int], g: list[int]) -> str:
        known = w, *o, *g
        if known not in bodies:
            text = Prompt(current_observations=o, current_subgoals=g, current_instruction=w).to_text(family)
            bodies[known] = text.split("\n", 1)[1]
        return f"Episode {n + 1}{' (now)' if last else ''}\n{bodies[known]}"

    N = corpus.instructions.shape[1]
    rows = zip(*(a.tolist() for a in (corpus.instructions, corpus.observations, corpus.subgoals)), strict=True)
    return ["\n".join(block(n, n == N - 1, *e) for n, e in enumerate(zip(*row, strict=True))) for row in rows]


def _plain(task: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in task.items()}
