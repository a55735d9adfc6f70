"""Daphne server with a raw-TCP listener beside its HTTP and WebSocket listeners.

All run on one event loop. imgo accepts the connections, and serves the sockets of sessions itself:
those of raw TCP from the start, those of WebSockets from the upgrade request on. Daphne serves all
other HTTP (see `http_listener.py` and `upgrade.py`). This server adds a `tcp` scope, limits for
clients that send too much or read too slowly, and a shutdown that closes sessions with a reason.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

# First: it installs the asyncio reactor before anything else imports Twisted's default one.
from daphne.server import Server

# isort: split
from twisted.internet import defer, reactor

from imgo_site import database_threads, garbage_collection
from imgo_site.conf import conf
from imgo_site.errors import ImgoError
from imgo_site.process_parts import process
from imgo_site.shutdown import Shutdown
from push.bus.background_tasks import Background
from push.metrics import database_pool
from push.node.node import Node
from push.node.node_instance import NodeInstance
from push.node.runtime import Runtime, finish
from push.server import ports
from push.server.early_authorization import EarlyAuthorization
from push.server.http_body_limits import Bodies
from push.server.http_channel import Channel
from push.server.http_listener import HttpListener
from push.server.tcp_listener import TcpListener
from push.server.upgrade import DirectRequest, http_ports, scope_of, serve_http
from push.session.link_manager import LinkManager
from push.session.session_metrics import SessionFigures
from push.session.socket_link import SocketLink
from push.session.unauthenticated_connections import UnauthenticatedConnections
from push.status.instance import INSTANCE

logger = logging.getLogger(__name__)

OPENING_TIMEOUT = 3.0  # seconds that a shutdown waits for a start under way
NODE_TIMEOUT = 5.5  # seconds beyond DRAIN_SECONDS for the node's part of a shutdown
THREADS_TIMEOUT = 0.5  # seconds for the database threads, after everything else has ended
CLOSE_TIMEOUT = 2.0  # seconds for cancelled applications to end
# Range of seconds between checks of shared ports; drawn once at random.
SHARED_PORT_CHECK = (0.5, 1.5)
NEVER = float("inf")


class ImgoServer(Server):  # type: ignore[misc]
    """Server for HTTP, WebSocket and raw TCP, and owner of a node.

    `on_started()`: called once all listeners listen.
    """

    def __init__(self, application: Any, on_started: Callable[[], None]) -> None:
        super().__init__(
            application,
            endpoints=["tcp:port=0"],  # Daphne requires one; it is removed below
            # A request whose client has disconnected ends by itself and releases its database
            # connection. If it were cancelled while the database does not answer, it would never
            # release the connection.
            application_close_timeout=NEVER,
            verbosity=1,
            ready_callable=self._before_start,
            server_name="imgo",
            signal_handlers=False,  # `Shutdown` has its own
        )
        self.endpoints: list[str] = []  # `_listen_http` listens, at every address of HOST
        self.failure = ""
        self.instance = NodeInstance()
        self._on_started = on_started
        self.unauthenticated = UnauthenticatedConnections()
        self.gate = EarlyAuthorization()
        self.bodies = Bodies(self.gate)
        self.loop: asyncio.AbstractEventLoop
        self.manager: LinkManager
        self._listener: TcpListener | None = None
        self._applications = Background("Exception inside application")
        self._runtime = Runtime()
        self._shutdown = Shutdown("the server")
        self._opening: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._http_listeners: list[HttpListener] = []
        self._hosts: list[str] = []  # the addresses for HTTP_PORT, even while none listens

    def run(self) -> None:
        """Serve until stopped. Afterwards `failure` is the reason of a failure, or ""."""
        self.instance.health.starting()
        self._shutdown.on_signals(lambda: reactor.callFromThread(self.stop))
        super().run()
        self.gate.close()
        if not database_threads.close_all(THREADS_TIMEOUT):
            logger.warning("the database does not answer; stopping without its unfinished calls")
        self._shutdown.leave(1 if self.failure else 0)

    def _before_start(self) -> None:
        self.http_factory.timeOut = conf.HANDSHAKE_TIMEOUT  # for half a request, or none
        self.http_factory.protocol = Channel
        self._build_http = self.http_factory.buildProtocol
        self.http_factory.buildProtocol = self._build_channel
        reactor.callWhenRunning(self._open)

    def _build_channel(self, address: Any) -> Any:
        """Return the protocol for a connection."""
        protocol = self._build_http(address)
        protocol.requestFactory = DirectRequest
        return protocol

    def has_room(self) -> bool:
        """Return whether one more connection may be accepted."""
        return self.unauthenticated.try_admit(len(self.manager.poller) + len(self.unauthenticated))

    def _open(self) -> None:
        self.loop = asyncio.get_event_loop()
        self.manager = LinkManager(self.loop, self.unauthenticated)
        self._listen_http()
        if self.failure:
            return  # `_fail` has stopped the reactor
        self._opening = self.loop.create_task(self._open_rest())
        self.instance.health.watch(self._runtime.failing)

    def _listen_http(self) -> None:
        serve = partial(serve_http, self.http_factory)
        try:
            for port in http_ports():
                listener = HttpListener(self.manager, self.has_room, port, self.run_link, serve)
                self._http_listeners.append(listener)
                if port == conf.HTTP_PORT:
                    self._hosts = listener.hosts
        except OSError as error:
            self._fail(ports.reason(error, "IMGO_HTTP_PORT, IMGO_WS_PORT"))

    def _listen_tcp(self) -> None:
        if conf.TCP_PORT:
            self._listener = TcpListener(self.manager, self.has_room, self.run_link)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.manager.tick()
            process.get(SessionFigures).update_if_due()
            database_pool.update_if_due()

    async def _open_rest(self) -> None:
        """Start the node, then the TCP listener; then report the start."""
        self._runtime.keep("ticking", self._tick)  # needs the running loop
        try:
            node = await self.instance.node()
            await node.cluster_jobs.warm_up()
            if conf.REUSE_PORT:
                node.hub.on_drain = partial(self._drain_shared, node)
                node.hub.on_undrain = partial(self._undrain_shared, node)
                # Random, so that of two nodes drained at the same moment one checks first.
                every = random.uniform(*SHARED_PORT_CHECK)  # noqa: S311
                self._runtime.repeat("shared ports", partial(self._check_shared_ports, node), every)
            self._listen_tcp()
            garbage_collection.freeze()
            self.instance.health.started()
            logger.info("node %s (%s) has started on %s", node.name, node.id, _addresses())
            self._on_started()
        except OSError as error:
            self._fail(ports.reason(error, f"IMGO_TCP_PORT={conf.TCP_PORT}"))
        except ImgoError as error:
            self._fail(f"the node could not be started: {error.message}")
        except Exception as error:
            logger.exception("the node could not be started")
            self._fail(f"the node could not be started: {error}")

    def listen_error(self, failure: Any) -> None:
        """Stop because a port cannot be listened on; report the setting to change."""
        self._fail(f"{failure.getErrorMessage()} (IMGO_HTTP_PORT, IMGO_WS_PORT)")

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.stop()

    def stop(self) -> None:
        """Begin the shutdown. Further calls do nothing."""
        self._shutdown.begin(self.failure or "it was told to")
        if not self._is_stopping:
            self._is_stopping = True
            super().stop()

    def run_link(self, link: SocketLink, scope: dict[str, Any]) -> None:
        """Run the application for a direct link. The application ends when the session is open."""
        scope = scope_of(scope, link, self.instance)
        self._applications.run(self._serve_link(scope, link))

    async def _serve_link(self, scope: dict[str, Any], link: SocketLink) -> None:
        """Run the application; close the connection if it fails. The error is logged."""
        try:
            await self.application(scope, link.receive, link.send)
        except Exception:
            link.lose()
            raise

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Start the application for an HTTP request, which belongs to this server's instance."""
        return super().create_application(protocol, {**scope, INSTANCE: self.instance})

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Send a reply as Daphne does, but wait for a client that reads slowly."""
        await super().handle_reply(protocol, message)
        await protocol.drained()

    def kill_all_applications(self) -> defer.Deferred[None]:
        """Close sessions with a reason, then end the rest; the reactor stops after that."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._shut()))

    async def _drain_shared(self, node: Node) -> None:
        self._share_ports(is_drained=True)
        await node.drain_on_order()

    async def _undrain_shared(self, node: Node) -> None:
        await node.undrain()
        self._share_ports(is_drained=node.is_draining)

    async def _check_shared_ports(self, node: Node) -> None:
        self._share_ports(is_drained=node.is_draining)

    def _share_ports(self, *, is_drained: bool) -> None:
        """Stop listening while drained, if other nodes listen on the same ports; else listen.

        A drained node would refuse connections that another node can serve. If no other node
        listens, this one does even while drained, because probes must be answered.
        """
        if self._is_stopping:
            return
        if is_drained and self._others_listen():
            self._stop_listening()
            return
        if not self._http_listeners:
            self._listen_http()
        if self._listener is None:
            self._listen_tcp()

    def _others_listen(self) -> bool:
        """Return whether other processes listen on HTTP_PORT; False if that is not known."""
        try:
            count = ports.listeners(self._hosts)
        except OSError as error:  # e.g. out of file descriptors; the drain must still continue
            logger.warning("could not count the other listeners of HTTP_PORT: %s", error)
            return False
        return count > (len(self._hosts) if self._http_listeners else 0)

    def _stop_listening(self) -> None:
        for listener in self._http_listeners:
            listener.close()
        self._http_listeners.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _shut(self) -> None:
        """Stop all parts in reverse order of their start, within the time of `Shutdown`."""
        self._shutdown.begin("the reactor stops")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + conf.DRAIN_SECONDS + NODE_TIMEOUT
        self.instance.health.stopping()
        self._stop_listening()
        if self._opening is not None:
            await asyncio.wait([self._opening], timeout=OPENING_TIMEOUT)
            self._opening.cancel()
        self._stop_listening()  # ports that were opened meanwhile
        await finish(self.instance.stop(OPENING_TIMEOUT), deadline, "the node")
        await self._end_applications()
        await self._runtime.stop(deadline)
        self.manager.close()
        logger.info("the server has stopped, after %.1f s", self._shutdown.taken())

    async def _end_applications(self) -> None:
        left = [
            instance
            for details in self.connections.values()
            if (instance := details.get("application_instance")) is not None
        ]
        for task in (*left, *self._applications.tasks):
            task.cancel()
        if left or self._applications.tasks:
            await asyncio.wait([*left, *self._applications.tasks], timeout=CLOSE_TIMEOUT)


def _addresses() -> str:
    """Return the addresses that this node listens on, for the log."""
    ports = {"HTTP": conf.HTTP_PORT, "WebSocket": conf.WS_PORT, "TCP": conf.TCP_PORT}
    return ", ".join(f"{name} {conf.HOST}:{port}" for name, port in ports.items() if port)
