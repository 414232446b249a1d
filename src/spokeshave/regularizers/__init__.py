"""Pulls on the weights while a network is trained; each attaches to any torch optimizer in one line."""

from spokeshave.regularizers.freeze import Freeze as Freeze
from spokeshave.regularizers.freeze import Frozen as Frozen
from spokeshave.regularizers.group_lasso import GroupLasso as GroupLasso
from spokeshave.regularizers.group_lasso import Solver as Solver

__all__ = ["Freeze", "Frozen", "GroupLasso", "Solver"]
