"""Conversion of Redis's errors into `Unavailable`."""

import redis

from imgo_site.errors import Unavailable
from push.bus import service_faults


class reading:  # noqa: N801 - reads as a statement
    """Context manager that turns Redis's errors into `Unavailable`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError):
            raise unavailable(error) from error


def unavailable(error: Exception) -> Unavailable:
    """Return an error without Redis's own text, because it may reach a client."""
    return Unavailable(f"Redis {service_faults.of_redis(error)}.")
