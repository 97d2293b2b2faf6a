"""What bayespar computes, again, by explicit sums in plain Python: the other side of every exact check."""

from .corpus import corpus_law as corpus_law, uneven_behaviour as uneven_behaviour
from .enumeration import (
    ExactOracle as ExactOracle,
    History as History,
    Integer as Integer,
    Oracle as Oracle,
    as_prompt as as_prompt,
    as_tuple as as_tuple,
)
from .regret import regret as regret
from .separation import eta as eta, hellinger as hellinger
