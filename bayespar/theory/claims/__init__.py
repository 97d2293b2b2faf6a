"""The claims, one file each."""

from ..claim import Claim
from .c1 import C1
from .c2 import C2
from .c3 import C3
from .n1 import N1

CLAIMS: dict[str, Claim] = {claim.id: claim for claim in (C1, C2, C3, N1)}
