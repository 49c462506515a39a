"""`python -m mow_kernels`: what can run here."""

from mow_kernels import __version__
from mow_kernels.registry import BACKENDS, TABLE

print(f"mow_kernels {__version__}")
for op, row in TABLE.items():
    for backend in BACKENDS:
        print(f"  {op:<20}{backend:<11}{row[backend] if isinstance(row[backend], str) else 'yes'}")
