"""Pulls on the weights while a network is trained; each attaches to any torch optimizer in one line."""

from spokeshave.regularizers.force import Components as Components
from spokeshave.regularizers.force import Force as Force
from spokeshave.regularizers.force import Pull as Pull
from spokeshave.regularizers.force import Scale as Scale
from spokeshave.regularizers.freeze import Freeze as Freeze
from spokeshave.regularizers.freeze import Frozen as Frozen
from spokeshave.regularizers.group_lasso import GroupLasso as GroupLasso
from spokeshave.regularizers.group_lasso import Solver as Solver
from spokeshave.regularizers.guidance import Guide as Guide
from spokeshave.regularizers.guided_l1 import GuidedL1 as GuidedL1
from spokeshave.regularizers.guided_l1 import L1Solver as L1Solver
from spokeshave.regularizers.magnitude_schedule import MagnitudeSchedule as MagnitudeSchedule
from spokeshave.regularizers.network_surgery import NetworkSurgery as NetworkSurgery
from spokeshave.regularizers.one_level import LevelSolver as LevelSolver
from spokeshave.regularizers.one_level import OneLevel as OneLevel
from spokeshave.regularizers.optimizer_hooks import Regularizer as Regularizer
from spokeshave.regularizers.probability_bias import Penalty as Penalty
from spokeshave.regularizers.probability_bias import ProbabilityBias as ProbabilityBias
from spokeshave.regularizers.straight_through import StraightThrough as StraightThrough

__all__ = [
    "Components",
    "Force",
    "Freeze",
    "Frozen",
    "GroupLasso",
    "Guide",
    "GuidedL1",
    "L1Solver",
    "LevelSolver",
    "MagnitudeSchedule",
    "NetworkSurgery",
    "OneLevel",
    "Penalty",
    "ProbabilityBias",
    "Pull",
    "Regularizer",
    "Scale",
    "Solver",
    "StraightThrough",
]
