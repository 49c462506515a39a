"""Our distances under other libraries' signatures, and windows in their training loops: one module a library.

No module needs its library but to be used: `mow.adapters.geomloss`, `mow.adapters.pot` and `mow.adapters.mmd_gan`
never import theirs, `mow.adapters.lightning`, `mow.adapters.pythae` and `mow.adapters.torchmetrics` do when they are
imported themselves.
"""
