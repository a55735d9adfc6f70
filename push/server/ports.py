"""Addresses and ports that a node listens on: each port on every address of HOST."""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imgo_site.conf import conf
from imgo_site.setting_values import shown

Family = socket.AddressFamily

LISTENERS = ("HTTP_PORT", "WS_PORT", "TCP_PORT")  # settings
WILDCARD_HOSTS = frozenset({"", "::", "[::]"})  # IPv6, and IPv4 on the same socket
UNAVAILABLE_ERRNOS = frozenset(
    {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)  # e.g. on a machine without IPv6
KERNEL_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
KERNEL_LISTEN = "0A"  # TCP_LISTEN in Linux's net/tcp_states.h
MAPPED = "::ffff:"  # how an IPv6 socket writes an IPv4 address


class HostUnknown(OSError):
    """HOST is a name without an address."""


def reason(error: OSError, settings: str) -> str:
    """Return why a node cannot listen, and the setting to change.

    `settings`: those of the port, for an error that HOST does not cause.
    """
    why = error.strerror or str(error)
    is_host = isinstance(error, HostUnknown) or error.errno in UNAVAILABLE_ERRNOS
    return f"{why} (IMGO_HOST={shown(conf.HOST)})" if is_host else f"{why} ({settings})"


def ports() -> list[tuple[str, int]]:
    """Return (setting, port) for all ports that a node listens on."""
    return [(name, port) for name in LISTENERS if (port := getattr(conf, name))]


def addresses() -> list[tuple[Family, str]]:
    """Return (family, address) for each address of HOST; a name may have several.

    Raises `OSError`; `HostUnknown` for a name without an address.
    """
    if conf.HOST in WILDCARD_HOSTS:
        families = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104
        return families[:1] if socket.has_dualstack_ipv6() else families[1:]
    try:
        infos = socket.getaddrinfo(conf.HOST.strip("[]"), None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:  # the latter for a part of 64 characters
        raise HostUnknown(getattr(error, "strerror", None) or str(error)) from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in infos))


def listen(port: int, *, shared: bool) -> list[socket.socket]:
    """Return sockets that listen on a port, one for each address of HOST.

    `shared`: let other processes listen on the port, too.

    Raises `OSError`.
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
        if error.errno in UNAVAILABLE_ERRNOS and len(addresses()) > 1:
            return None
        raise
    sock.setblocking(False)
    return sock


@contextmanager
def held(port: int) -> Iterator[None]:
    """Reserve a port for the node processes of this command, also while none of them listens.

    With SO_REUSEPORT, two installations of one user would share a port unnoticed. So the port is
    first bound without it, which fails if any process listens.

    Raises `OSError`.
    """
    with ExitStack() as opened:
        for family, host in addresses():
            with _bound(family, host, port, socket.SO_REUSEADDR):
                pass
            # This socket never listens, so it gets no connections.
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
    """Return how many sockets of this machine listen on HTTP_PORT of these IP addresses.

    The source is Linux's table of TCP sockets, in which listening sockets come first. On other
    systems, return 0.

    Raises `OSError`.
    """
    ours = {f"{_in_kernel(host)}:{conf.HTTP_PORT:04X}" for host in hosts}
    return sum(_listening(table, ours) for table in KERNEL_TABLES if table.exists())


def _in_kernel(host: str) -> str:
    """Return an address in the format of the kernel's tables: words in the machine's byte order."""
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
    """Return an IPv4 address in the form of IPv4, also if an IPv6 socket reports it."""
    return address.removeprefix(MAPPED) if "." in address else address


def in_url(host: str) -> str:
    """Return a host in the form of URLs: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
