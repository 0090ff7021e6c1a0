"""A model that a client keeps for itself."""

from fedit.core.fitting import Fitter
from fedit.core.messages import Home, Order
from fedit.core.tree import Tree

PERSONAL = "personal"
"""Home role of a client's own model."""


def own_model(received: Tree, order: Order, home: Home, fit: Fitter) -> Tree:
    """The model a client has kept for itself, what it received where it has none yet."""
    return home.payload.get(PERSONAL, received)
