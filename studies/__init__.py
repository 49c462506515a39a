"""The experiments behind the pages of the documentation, a folder a page, each with its results beside it.

python -m studies.PAGE            says what it can do; most of them can `run` and `report`, which makes the page

What they share with the harness is there: `benchmarks.page` fills pages, `benchmarks.record` says what was measured on.
A result from before the studies had this place names the command that it would be made with today.
"""
