"""Several uses of one parameter, whose gradients add up before they are squared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from torch import Tensor

from skgradood.gradients.contributions import (
    Contribution,
    EmbeddingContribution,
    OuterContribution,
)
from skgradood.gradients.precision import whole_precision
from skgradood.gradients.sums import inner_products, least_share, out_of_range


def joined(contributions: Sequence[Contribution]) -> list[Contribution]:
    """The same sum, in as few contributions as there are forms.

    Uses of one form, such as the steps of a recurrent cell, are one use over all their positions:
    its norm may follow without the gradient, which otherwise would be formed for every use.
    """
    if len(contributions) < 2:
        return list(contributions)
    forms: defaultdict[Hashable, list[Contribution]] = defaultdict(list)
    for contribution in contributions:
        forms[contribution.form()].append(contribution)
    return [
        parts[0] if len(parts) == 1 else type(parts[0]).joined(parts) for parts in forms.values()
    ]


def tied_norms(contributions: Sequence[Contribution]) -> tuple[Tensor, Tensor] | None:
    """Squared norms of a table that is also a linear map, as language models have it.

    ‖E + O‖² = ‖E‖² + ‖O‖² + 2⟨E, O⟩, where ⟨E, O⟩ = Σ_t,s left_s[index_t] ⟨e_t, right_s⟩ needs no
    gradient of the table's size.

    Returns
    -------
    tuple of Tensor, or None
        Norms (n,) in the device's `sum_dtype`, and where they can be trusted, (n,) bool: not where
        terms cancel. None for anything else than one such pair of uses.
    """
    uses = {type(contribution): contribution for contribution in contributions}
    table, linear = uses.get(EmbeddingContribution), uses.get(OuterContribution)
    if len(contributions) != 2 or table is None or linear is None:
        return None
    assert isinstance(table, EmbeddingContribution)
    assert isinstance(linear, OuterContribution)
    if linear.factor_layout() is None or table.output_gradients.is_complex():
        return None
    left, right = (whole_precision(factor[:, 0]) for factor in linear.factors(slice(None)))
    similarity = whole_precision(table.output_gradients) @ right
    picked = left.gather(1, table.indices[..., None].expand_as(similarity))
    own = table.squared_norm() + linear.squared_norm()
    terms = similarity.flatten(1), picked.flatten(1)
    norms = own + 2 * inner_products(*terms)
    bound = own + 2 * inner_products(*(term.abs() for term in terms))
    least = max(least_share(use.output_gradients) for use in (table, linear))
    trusted = (norms >= least * bound) & (~out_of_range(bound) | (bound == 0))
    return norms, trusted
