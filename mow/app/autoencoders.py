"""The kinds of auto-encoders that `mow train --model` takes, a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mow.window.distances import MMD, CramerWold, Distance, SlicedWasserstein


@dataclass(frozen=True)
class Model:
    """A kind of auto-encoder: the distance that holds its latents to the prior.

    title, distance_title: of the model and of its distance, in words for a person.
    distance: makes the distance from a prior, `log`, and what `options` names.
    log: whether it is the logarithm of the distance that is minimised, unless told otherwise.
    score: that one of `mow.app.evaluation.score` which is the bare distance, over the test latents.
    options: for each further argument of `distance` the option of `mow.app.options.Options` that it is.
    """

    title: str
    distance_title: str
    distance: Callable[..., Distance]
    log: bool
    score: str
    options: Mapping[str, str] = field(default_factory=dict)


MODELS = {
    "cwae": Model(
        title="Cramer-Wold auto-encoder",
        distance_title="Cramer-Wold distance",
        distance=CramerWold,
        log=True,
        score="test_cwae_distance_exact",
        options={"phi": "phi"},
    ),
    "wae": Model(
        title="Wasserstein auto-encoder",
        distance_title="MMD",
        distance=MMD,
        log=False,
        score="test_mmd",
    ),
    "swae": Model(
        title="sliced-Wasserstein auto-encoder",
        distance_title="squared sliced-Wasserstein distance",
        distance=SlicedWasserstein,
        log=False,
        score="test_sliced_wasserstein",
        options={"directions": "directions", "keep": "keep_directions"},
    ),
}
"""The models by the name that `mow train --model` takes."""
