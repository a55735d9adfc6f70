"""The proof under faults: a load, things that break meanwhile, and a check of all that was said.

`make chaos` runs the long form, `tests/e2e/test_faults.py` the short one.
"""
