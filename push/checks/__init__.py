"""System checks of imgo's settings, each with an id and a hint.

`manage.py check` runs those that look at settings alone, as does every start of a server. With
`--deploy` come those about the machine, with `--deploy --database default` those that ask Postgres
and Redis how much they take.
"""

from push.checks import capacity, layers, limits, names, project, security
from push.checks.names import CALLABLES

__all__ = ["CALLABLES", "capacity", "layers", "limits", "names", "project", "security"]
