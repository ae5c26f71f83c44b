"""What happens where a parameter meets data: one rule a torch function.

A rule is called as ``rule(mode, function, args, kwargs)`` and returns what the function would.
It either calls a cut of :mod:`skgradood.gradients.capture.cuts`, or rewrites the function in
terms of simpler ones under ``with mode``.
"""

from skgradood.gradients.capture.rules import (
    convolution,
    einsum,
    elementwise,
    embedding,
    matmul,
    normalization,
    recurrent,
    solving,
    structure,
)

RULES = {
    **elementwise.RULES,
    **matmul.RULES,
    **convolution.RULES,
    **normalization.RULES,
    **embedding.RULES,
    **structure.RULES,
    **einsum.RULES,
    **solving.RULES,
    **recurrent.RULES,
}
