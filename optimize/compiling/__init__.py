"""DSPy optimizers behind one table: each makes candidates from the training examples.

To add one, write a class like those in `optimize.compiling.fewshot` and enter it in `optimize.compiling.steps.STEPS`.
"""

from optimize.compiling.recombining import recombine as recombine
from optimize.compiling.run import Compiled as Compiled
from optimize.compiling.run import compile_candidates as compile_candidates
from optimize.compiling.run import quiet_dspy as quiet_dspy
from optimize.compiling.run import run_optimizer as run_optimizer
from optimize.compiling.table import OPTIMIZERS as OPTIMIZERS
from optimize.compiling.table import check_optimizer as check_optimizer
from optimize.compiling.table import predicted_calls as predicted_calls
from optimize.compiling.tally import CompileFailedError as CompileFailedError
from optimize.compiling.task import CompileTask as CompileTask
from optimize.compiling.task import teachable as teachable
