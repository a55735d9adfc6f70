"""Where a node listens: every address that HOST stands for, each port on all of them alike."""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imgo_site.conf import conf, shown

Family = socket.AddressFamily

LISTENERS = ("HTTP_PORT", "WS_PORT", "TCP_PORT")  # settings
ANYWHERE = frozenset({"", "::", "[::]"})  # IPv6, and IPv4 on the same socket
NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # a machine without IPv6
KERNEL_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
KERNEL_LISTEN = "0A"  # TCP_LISTEN in Linux's net/tcp_states.h
MAPPED = "::ffff:"  # how an IPv6 socket writes an IPv4 address


class HostUnknown(OSError):
    """HOST is a name that has no address."""


def reason(error: OSError, settings: str) -> str:
    """Return why nothing can be listened on, and the setting to change.

    `settings`: those of the port, where it is not HOST that is to blame.
    """
    why = error.strerror or str(error)
    is_host = isinstance(error, HostUnknown) or error.errno in NOT_HERE
    return f"{why} (IMGO_HOST={shown(conf.HOST)})" if is_host else f"{why} ({settings})"


def ports() -> list[tuple[str, int]]:
    """Return (setting, port) of all ports that a node listens on."""
    return [(name, port) for name in LISTENERS if (port := getattr(conf, name))]


def addresses() -> list[tuple[Family, str]]:
    """Return the addresses that HOST stands for; a name may have several.

    Raises OSError: `HostUnknown` for a name that has none.
    """
    if conf.HOST in ANYWHERE:
        found = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104
        return found[:1] if socket.has_dualstack_ipv6() else found[1:]
    try:
        infos = socket.getaddrinfo(conf.HOST.strip("[]"), None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:  # the latter for a part of 64 characters
        raise HostUnknown(getattr(error, "strerror", None) or str(error)) from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in infos))


def listen(port: int, *, shared: bool) -> list[socket.socket]:
    """Return sockets that listen on a port; other processes may listen too if it is `shared`.

    Raises OSError.
    """
    with ExitStack() as opened:
        sockets = [
            opened.enter_context(sock)
            for family, host in addresses()
            if (sock := _open(family, host, port, shared)) is not None
        ]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        opened.pop_all()
    return sockets


def _open(family: Family, host: str, port: int, shared: bool) -> socket.socket | None:
    try:
        sock = socket.create_server(
            (host, port),
            family=family,
            backlog=conf.LISTEN_BACKLOG,
            reuse_port=shared,
            dualstack_ipv6=host == "::",
        )
    except OSError as error:
        if error.errno in NOT_HERE and len(addresses()) > 1:
            return None
        raise
    sock.setblocking(False)
    return sock


@contextmanager
def held(port: int) -> Iterator[None]:
    """Keep a port for other processes of ours, also while none of them listens. Raises OSError.

    SO_REUSEPORT would let two installations of one user share a port unawares: so the port is
    first asked for without it, which fails when anybody listens.
    """
    with ExitStack() as opened:
        for family, host in addresses():
            with _bound(family, host, port, socket.SO_REUSEADDR):
                pass
            # It never listens: no connection comes here.
            opened.enter_context(_bound(family, host, port, socket.SO_REUSEPORT))
        yield


def _bound(family: Family, host: str, port: int, option: int) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def listeners(hosts: Iterable[str]) -> int:
    """Return how many sockets of this machine listen at HTTP_PORT of these IP addresses.

    As Linux tells it, which shows those that listen before all others; elsewhere 0. Raises OSError.
    """
    ours = {f"{_in_kernel(host)}:{conf.HTTP_PORT:04X}" for host in hosts}
    return sum(_listening(table, ours) for table in KERNEL_TABLES if table.exists())


def _in_kernel(host: str) -> str:
    """An address as the kernel's tables have it: words in the machine's order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _listening(table: Path, ours: set[str]) -> int:
    count = 0
    with table.open() as lines:
        next(lines)  # the names of the columns
        for line in lines:
            _, address, _, state, *_ = line.split()
            if state != KERNEL_LISTEN:
                break
            count += address in ours
    return count


def plain_address(address: str) -> str:
    """Return an IPv4 address as IPv4, though it came to a socket for both."""
    return address.removeprefix(MAPPED) if "." in address else address


def in_url(host: str) -> str:
    """Return a host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
