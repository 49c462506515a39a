"""Our distances under other libraries' signatures, and windows in their training loops: one module a library.

No module needs its library but to be used: `mow.adapters.geomloss` and `mow.adapters.pot` never import theirs,
`mow.adapters.lightning` and `mow.adapters.pythae` do when they are imported themselves.
"""
