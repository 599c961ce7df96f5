"""The noise levels of sampling: the official LTX-2 schedule.

N + 1 levels run linearly from 1 to 0; each non-zero level s becomes e^mu / (e^mu + 1/s - 1) with mu = 2.05 (the value
of 4,096 tokens, which the official validation uses whatever the clip's size); then the non-zero ones are stretched
linearly about 1 so that the last of them is 0.1.
"""

import math
from typing import Final

MU: Final = 2.05
TERMINAL: Final = 0.1


def sigmas(steps: int) -> list[float]:
    """The `steps` + 1 noise levels of Euler sampling, from 1 down to 0."""
    shift = math.exp(MU)
    shifted = [shift / (shift + 1 / (1 - index / steps) - 1) for index in range(steps)]
    if steps > 1:  # a single level is 1 itself, and has nothing to be stretched to
        factor = (1 - TERMINAL) / (1 - shifted[-1])
        shifted = [1 - (1 - level) * factor for level in shifted]
    return [*shifted, 0.0]
