"""Every script under examples/ runs a few steps; where a library that it needs is missing, the reason says so."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    """The script as a module; skips where it imports a library that is not installed."""
    spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where a dataclass looks for it
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name}.py needs {error.name}, which is not installed")
    return module


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().out


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def test_there_is_a_test_for_every_example() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in here] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 120


@pytest.mark.parametrize("name", ["gmmn", "mmd_gan", "point_clouds"])
def test_a_model_learns_and_draws(name: str, pictures_file: Path, tmp_path: Path, said) -> None:
    example(name).main(steps=60, n=16, source=str(pictures_file), out=tmp_path / "drawn.png")
    lines = said().splitlines()
    first, last = numbers(lines[0])[0], numbers(lines[-1])[0]
    assert len(lines) == 10 and last < first
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_no_order_of_the_points_matters(randn) -> None:
    module = example("point_clouds")
    encoder, clouds = module.SetEncoder(4), randn(3, 20, 2, dtype=torch.float32)
    shuffled = clouds[:, torch.randperm(20)]
    torch.testing.assert_close(encoder(shuffled), encoder(clouds))
    torch.testing.assert_close(module.reconstruction_error(shuffled, clouds), torch.zeros(()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("amp", [False, True])
def test_a_compiled_step_is_the_eager_one(pictures_file: Path, said, amp: bool) -> None:
    losses = []
    for backend in ("eager", "aot_eager"):
        torch.compiler.reset()
        with torch._dynamo.config.patch(error_on_recompile=True):
            example("compiled_step").main(steps=8, n=8, source=str(pictures_file), backend=backend, amp=amp)
        losses.append(numbers(said())[0])
    assert losses[0] == pytest.approx(losses[1], abs=0.3 if amp else 2e-3)


def test_lightning(pictures_file: Path, tmp_path: Path, said) -> None:
    module = example("lightning_autoencoder")
    with warnings.catch_warnings(action="ignore"):  # Lightning's own
        module.main(steps=5, n=8, source=str(pictures_file), out=tmp_path)
        module.main(steps=7, n=8, source=str(pictures_file), out=tmp_path, resume=tmp_path / "last.ckpt")
    assert said().splitlines()[-1].startswith("7 steps, window 8 of 8: ")


def test_accelerate_goes_on_where_it_stopped(pictures_file: Path, tmp_path: Path, said) -> None:
    module = example("accelerate_autoencoder")
    for steps, resume in ((4, False), (6, True)):
        module.main(steps=steps, n=8, source=str(pictures_file), out=tmp_path / "state", resume=resume)
    assert said().splitlines()[-1].startswith("steps 4 to 6, window 6 of 8, ")  # 2 of 8 if it had begun afresh


@pytest.mark.parametrize("library", ["mow", "geomloss"])
def test_a_gradient_flow(library: str, pictures_file: Path, said) -> None:
    if library == "geomloss":
        pytest.importorskip("geomloss")
    example("gradient_flow").main(steps=40, points=50, library=library, source=str(pictures_file))
    before, after = numbers(said())[:2]
    assert after < 0.5 * before


def test_pythae(pictures_file: Path, said) -> None:
    module = example("pythae_training")
    module.main(epochs=1, batch=50, pictures=100, source=str(pictures_file))
    own, drawn, ours = (numbers(line)[-1] for line in said().splitlines())
    assert own == pytest.approx(drawn, abs=2e-3) and own == pytest.approx(ours, abs=0.5)
    module.main(epochs=1, batch=1, pictures=20, source=str(pictures_file))
    assert said().startswith("ours, window of 64")


def test_the_widths_of_a_domain_adaptation_follow_the_data(pictures_file: Path, said, randn) -> None:
    module = example("domain_adaptation")
    x, y = randn(6, 3), randn(5, 3) + 1
    rows = torch.cat([x, y])
    mean = torch.cdist(rows, rows).square().mean().item()
    assert module.scales(x, y, (0.5, 2.0)) == pytest.approx([0.5 * mean / 3, 2 * mean / 3])
    module.main(steps=20, batch=16, source=str(pictures_file))
    assert len(said().splitlines()) == 10
