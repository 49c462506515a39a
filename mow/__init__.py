"""Training on batches as small as one, for models that compare samples: the moving window."""

from mow import priors
from mow.coreset import CoresetSampler, random_projection
from mow.critical_batch import GradientNoiseScale, fit_critical_batch
from mow.losses import MMD, CramerWold, SlicedWasserstein
from mow.micro_batch import accumulate, accumulate_coupled
from mow.prior_window import PriorWindow
from mow.stream import ShuffledStream
from mow.trainer import Trainer
from mow.window import MovingWindow
from mow_kernels import __version__

__all__ = [
    "MMD",
    "CoresetSampler",
    "CramerWold",
    "GradientNoiseScale",
    "MovingWindow",
    "PriorWindow",
    "ShuffledStream",
    "SlicedWasserstein",
    "Trainer",
    "__version__",
    "accumulate",
    "accumulate_coupled",
    "fit_critical_batch",
    "priors",
    "random_projection",
]
