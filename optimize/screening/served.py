"""How well the approximate search of a program in use agrees with the exact one that it was chosen by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from programs.search import Search

COMPARED = 200
"""So many questions are compared."""

AGREES = 0.99
"""Below this agreement the user is told."""


def agreement(exact: Search, served: Search, questions: Sequence[str]) -> float:
    """Mean share of the chunks that exact search hands to the reranker that the served one hands over, too; in [0, 1].

    Args:
        exact: Looks at all vectors.
        served: The same configuration over Chroma.
        questions: At least one.
    """
    depth = exact.config.retrieve_k
    pairs = zip(exact.retriever.retrieve(questions, depth), served.retriever.retrieve(questions, depth), strict=True)
    return float(np.mean([np.isin(one.positions, two.positions).mean() if len(one) else 1.0 for one, two in pairs]))
