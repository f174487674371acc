"""Claims of the sources, our tests of them, and the verdicts of the results. No verdict is written by hand.

``data/claims/NN.toml`` holds the claims of lesson NN. A group names the experiment whose results are tested, and
fields that its claims share; a table below it is one claim::

    [["01.steps"]]                      # the experiment
    where = { steps = 10 }              # settings of both sides
    source = "DDIM (Song et al. 2021), table 1"

    ["01.steps".ddim-few-steps]         # its id is 01.ddim-few-steps
    says = "Without fresh noise ten steps give FID 13.4, with it 41.1."     # the claim of the source, paraphrased
    expect = "fd: a < 0.5 * b"          # our test: the quantity, the two sides, the size of the effect
    a = { eta = 0.0 }                   # the rows of a and of b; a list of values means any of them
    b = { eta = 1.0 }

`reading` has the grammar, `judging` the interval and the rule, `display` the ledger at the end of a lesson.
"""

from survey_lib.course.claims.display import COMPARED, Ledger, counts, ledger, said
from survey_lib.course.claims.judging import (
    DIRECTION,
    INCONCLUSIVE,
    NO_DIFFERENCE,
    NOT_HERE,
    OUT_OF_DATE,
    REPRODUCED,
    VERDICTS,
    Verdict,
    chance,
    in_words,
    interval,
    judge,
    rule,
    verdicts,
)
from survey_lib.course.claims.reading import Claim, load

__all__ = [
    "COMPARED",
    "DIRECTION",
    "INCONCLUSIVE",
    "NOT_HERE",
    "NO_DIFFERENCE",
    "OUT_OF_DATE",
    "REPRODUCED",
    "VERDICTS",
    "Claim",
    "Ledger",
    "Verdict",
    "chance",
    "counts",
    "in_words",
    "interval",
    "judge",
    "ledger",
    "load",
    "rule",
    "said",
    "verdicts",
]
