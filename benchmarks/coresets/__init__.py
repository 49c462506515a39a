"""Core-sets: how fast and how frugal k_center is, and what it does for anomaly detection.

python -m benchmarks.coresets run [PART ...]   measures, into benchmarks/results/coresets/
python -m benchmarks.coresets report           makes the tables of docs/core-sets.md from it
"""
