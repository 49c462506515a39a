"""The moving window among its neighbours: micro-batches, core-sets and the critical batch size, measured on one core.

python -m benchmarks.neighbours run [PART ...]   measures what is not in benchmarks/results/neighbours/ yet
python -m benchmarks.neighbours report           makes the tables and plots of docs/neighbours.md from it
"""
