"""An encoder in, numbers out, each with its protocol."""

from rizbin.core.measurement import Measurement, Report
from rizbin.evaluation.suite import Evaluation, evaluate

__all__ = ["Evaluation", "Measurement", "Report", "evaluate"]
