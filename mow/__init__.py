"""Training on batches as small as one, for models that compare samples: the moving window."""

from mow.startup import ctrl_c_ends_at_once, is_command

with ctrl_c_ends_at_once(is_command()):
    from mow.neighbours.coreset import CoresetSampler, random_projection
    from mow.neighbours.critical_batch import GradientNoiseScale, fit_critical_batch
    from mow.neighbours.micro_batch import accumulate, accumulate_coupled
    from mow.training.history import History
    from mow.training.schedules import Cosine
    from mow.training.stream import ShuffledStream
    from mow.training.trainer import Trainer
    from mow.window import priors
    from mow.window.adaptive import AdaptiveSpan
    from mow.window.correction import DriftCorrection
    from mow.window.distances import MMD, CramerWold, SlicedWasserstein
    from mow.window.priors import PriorWindow
    from mow.window.window import MovingWindow
    from mow_kernels import __version__

__all__ = [
    "MMD",
    "AdaptiveSpan",
    "CoresetSampler",
    "Cosine",
    "CramerWold",
    "DriftCorrection",
    "GradientNoiseScale",
    "History",
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
