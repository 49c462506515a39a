"""pythae's WAE_MMD and INFOVAE_MMD with the MMD of mow_kernels, for its own training pipeline.

They train as pythae's own do and save what pythae's own load, but for a window. `pip install --no-deps pythae==0.1.2`
and, beside torch, cloudpickle, imageio, pydantic, scikit-learn and tqdm are what they need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pythae.models
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, mse_loss

import mow_kernels as mk
from mow.training.nonfinite import FiniteRows
from mow.window.distances import MMD
from mow.window.window import MovingWindow

OPTIONS = "mow.json"
"""The file of a saved model that holds what pythae's configuration has no field for."""


class _OurMMD:
    """What the two models share: the unbiased MMD of the latents to N(0, I), with the kernel of the configuration."""

    kernel_choice: str
    scales: list[float]
    model_config: Any
    training: bool

    def __init__(
        self,
        *args: Any,
        window: MovingWindow | None = None,
        closed_form: bool | None = None,
        on_nonfinite: str = "stop",
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._finite = FiniteRows(on_nonfinite)
        if window is not None and closed_form is False:
            raise ValueError("closed_form is False and there is a window; pythae draws a prior row a new latent only")
        self.window, self.closed_form = window, closed_form

    @property
    def rows_left_out(self) -> int:
        """How many latents did not enter the window, since they were not finite."""
        return self._finite.left_out

    def save(self, dir_path: str) -> None:
        """As pythae does, and beside its files what no file of its own holds."""
        super().save(dir_path)  # type: ignore[misc]  # pythae's model
        (Path(dir_path) / OPTIONS).write_text(json.dumps({"closed_form": self.closed_form}) + "\n", encoding="utf-8")

    @classmethod
    def load_from_folder(cls, dir_path: str) -> Any:
        """The model as it was saved: weights, window, closed_form. A folder of pythae's own model is read as well."""
        model = super().load_from_folder(dir_path)  # type: ignore[misc]  # pythae's model
        path = Path(dir_path) / OPTIONS
        if path.exists():
            model.closed_form = json.loads(path.read_text(encoding="utf-8"))["closed_form"]
        return model

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As PyTorch does, but that a window among the weights is made where the model has none, in its type."""
        latents = state_dict.get("window.latents")
        if latents is not None and self.window is None and self.closed_form is not False:
            like = next(self.parameters())  # type: ignore[attr-defined]  # a module
            self.window = MovingWindow(*latents.shape, dtype=like.dtype, device=like.device)
        return super().load_state_dict(state_dict, *args, **options)  # type: ignore[misc]  # a module

    def _mmd(self, z: Tensor, z_prior: Tensor) -> Tensor:
        """MMD of z [k, D] and the window's history; z becomes its newest rows in training, elsewhere k may exceed n."""
        scales = self.scales if self.kernel_choice == "imq" else [1.0]
        kernel = "imq" if self.kernel_choice == "imq" else "gaussian"
        scales = [self.model_config.kernel_bandwidth**2 * scale for scale in scales]
        window = self.window
        if window is None and not self.closed_form:
            return mk.mmd(z, None, z_prior, kernel=kernel, scales=scales)
        distance = MMD(kernel=kernel, scales=scales)
        if window is None or not self.training:
            return distance(z, None if window is None else window.history(len(z)))
        value = distance(z, window)
        self._finite.push(z.detach(), window)
        return value


class WAE_MMD(_OurMMD, pythae.models.WAE_MMD):
    """pythae's WAE_MMD.

        >>> from pythae.models import WAE_MMD_Config
        >>> from mow.adapters.pythae import WAE_MMD
        >>> config = WAE_MMD_Config(input_dim=(1, 4, 4), latent_dim=2)
        >>> model = WAE_MMD(config, window=mow.MovingWindow(64, config.latent_dim))

    Args:
        model_config, encoder, decoder: pythae's.
        window: measure over its history, too, so that batches may be as small as one. It becomes part of the model, and
            of what `save` writes and `load_from_folder` of this class reads.
        closed_form: True takes the prior N(0, I) in closed form, as a window always does. False takes the sample that
            pythae draws, which gives the losses of its own model up to rounding, and no window; None is True where
            there is a window, else False.
        on_nonfinite: what becomes of a latent that is NaN or infinite in the window's type: "stop" raises a
            FloatingPointError and leaves the window as it was, "skip" leaves it out and counts it in `rows_left_out`,
            "ignore" does not look.

    Raises:
        ValueError: a window and closed_form False; another on_nonfinite; later, for a batch of one where the prior is
            drawn, of which pythae's own loss is NaN.
    """

    def loss_function(self, recon_x: Tensor, x: Tensor, z: Tensor, z_prior: Tensor) -> tuple[Tensor, ...]:
        """loss, reconstruction error and MMD, 0-d."""
        errors = mse_loss(recon_x.flatten(1), x.flatten(1), reduction="none").sum(1)
        reconstruction, mmd = self.reconstruction_loss_scale * errors.mean(), self._mmd(z, z_prior)
        return reconstruction + self.model_config.reg_weight * mmd, reconstruction, mmd


class INFOVAE_MMD(_OurMMD, pythae.models.INFOVAE_MMD):
    """pythae's INFOVAE_MMD; arguments and errors as for `WAE_MMD`.

    >>> from pythae.models import INFOVAE_MMD_Config
    >>> from mow.adapters.pythae import INFOVAE_MMD
    >>> config = INFOVAE_MMD_Config(input_dim=(1, 4, 4), latent_dim=2)
    >>> model = INFOVAE_MMD(config, window=mow.MovingWindow(64, config.latent_dim))
    """

    def loss_function(
        self, recon_x: Tensor, x: Tensor, z: Tensor, z_prior: Tensor, mu: Tensor, log_var: Tensor
    ) -> tuple[Tensor, ...]:
        """loss, reconstruction error, KL divergence and MMD, 0-d."""
        if self.model_config.reconstruction_loss == "mse":
            errors = mse_loss(recon_x.flatten(1), x.flatten(1), reduction="none") / 2
        else:
            errors = binary_cross_entropy(recon_x.flatten(1), x.flatten(1), reduction="none")
        reconstruction, mmd = errors.sum(1).mean(), self._mmd(z, z_prior)
        kl = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(1).mean()
        return reconstruction + (1 - self.alpha) * kl + (self.alpha + self.lbd - 1) * mmd, reconstruction, kl, mmd
