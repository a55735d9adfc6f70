"""Attacks on a real node: each for as long as is asked, while others use it.

`python -m tests.attacks --seconds 30` runs all of them; `tests/e2e/test_attacks.py` a short form.
An attack is a coroutine `(target, seconds)` in the table `ATTACKS`. It asserts what its own clients
see. Meanwhile a process beside it measures how long heartbeats and new sessions of others take,
and the memory of the node is compared before and after.
"""
