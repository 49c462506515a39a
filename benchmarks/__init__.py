"""How fast and how frugal the distances are: naive code, torch.compile, every backend, peers and floors, side by side.

python -m benchmarks run [--quick]      measures, into one new JSON file in benchmarks/results/
python -m benchmarks report             makes docs/benchmarks.md, its plots and the table of docs/speed.md from it
pytest benchmarks --benchmark-only      the main cases under pytest-benchmark, in four minutes

The experiments behind the other pages are in studies/, which imports from here and not the other way round.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""
