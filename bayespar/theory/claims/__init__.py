"""The claims, one file each, in the order of the theory page."""

from .c1 import C1
from .c2 import C2
from .c3 import C3
from .contrast import CONTRAST
from .count import COUNT
from .e1 import E1
from .e2 import E2
from .e3 import E3
from .e4 import E4
from .e5 import E5
from .hier import HIER
from .icl import ICL_BAIL, ICL_BAWM
from .m1 import M1
from .n1 import N1
from .n2 import N2
from .n3 import N3
from .p1 import P1
from .p2 import P2
from .seq import SEQ
from .w1 import W1
from .w2 import W2
from .w3 import W3

CLAIMS = {
    claim.id: claim
    for claim in (
        C1,
        C2,
        C3,
        ICL_BAIL,
        COUNT,
        N1,
        N2,
        N3,
        E1,
        E2,
        E3,
        E4,
        E5,
        P1,
        P2,
        CONTRAST,
        W1,
        ICL_BAWM,
        W2,
        W3,
        HIER,
        M1,
        SEQ,
    )
}
