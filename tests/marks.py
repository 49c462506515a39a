"""What a test needs of the machine it runs on, without which it is skipped and says so."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist
from cuda_shim import library

from mow_kernels import native

needs_native = pytest.mark.skipif(native.unavailable is not None, reason=str(native.unavailable))
needs_compiler = pytest.mark.skipif(library.compiler is None, reason="no C++ compiler")
needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch has no torch.distributed with gloo"
)
needs_permissions = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write to any folder, and Windows has no such permissions"
)
