"""The Daphne server with a raw-TCP listener beside its HTTP and WebSocket ones.

All run on one event loop. What ours adds to Daphne: a `tcp` scope, a `send` that returns when the
kernel has taken the bytes and raises when the client has gone, close reasons, reading that pauses
for a client that sends faster than it is served, a deep listening backlog, and a shutdown that
closes sessions with a reason.
"""

import asyncio
import logging
from functools import partial
from typing import Any, cast

# First: it installs the asyncio reactor before anything else imports Twisted's default one.
from daphne.server import Server

# isort: split
from autobahn.exception import Disconnected
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import defer, reactor

from imgo_site import collector, database_threads
from imgo_site.conf import conf
from imgo_site.errors import ImgoError
from push import health, metrics, pool
from push.admission import Admission
from push.background import Background
from push.body_gate import BodyGate
from push.http_bodies import Bodies
from push.http_channel import Channel
from push.http_request import NodeRequest
from push.node import Node, get_node, stop_node
from push.ports import listen
from push.runtime import Runtime, finish
from push.shutdown import Shutdown
from push.sockets import Care, SocketLink
from push.takeover import DirectRequest, listen_http, scope_of
from push.tcp_listener import ROOM_PAUSE, TcpListener

logger = logging.getLogger(__name__)

INBOX_MAX = 64  # events a consumer may lag behind before its socket is not read any more
POLL_INTERVAL = 0.02  # seconds between looks at such an inbox
OPENING_TIMEOUT = 3.0  # seconds that a shutdown waits for a start that is under way
NODE_TIMEOUT = 5.5  # seconds beyond DRAIN_SECONDS for the node's part of a shutdown
THREADS_TIMEOUT = 0.5  # seconds for the database threads, when everything else has ended
CLOSE_TIMEOUT = 2.0  # seconds that a closed TCP connection may take to send what is left
NEVER = float("inf")


class ClientGone(OSError):
    """Raised by `send` after the client has disconnected (ASGI 2.4)."""


class SessionProtocol(WebSocketProtocol):  # type: ignore[misc]  # Daphne has no types
    """Daphne's WebSocket protocol with flow control both ways and close reasons."""

    maxMessagePayloadSize: int  # noqa: N815 - autobahn's

    def onOpen(self) -> None:  # noqa: N802 - autobahn's name
        """Become the transport's producer, so that it says when its buffer is empty."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self.transport.unregisterProducer()  # the HTTP channel that took the upgrade request
        self.transport.registerProducer(self, True)
        super().onOpen()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport has bytes that the kernel did not take."""
        self._writable.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """The kernel has everything."""
        self._writable.set()

    def stopProducing(self) -> None:  # noqa: N802
        """The transport is closed."""
        self._lost = True
        self._writable.set()

    async def send_now(self, message: dict[str, Any]) -> None:
        """Send, and return when the kernel has it; raises `ClientGone` when it never will."""
        # While this is 0 the transport pauses its producer, which is us, at the first byte that
        # has to wait instead of after 64 KiB. It is also the size of a read: so not for longer.
        self.transport.bufferSize = 0
        # The limit is for clients; autobahn applies it both ways.
        limit = self.maxMessagePayloadSize
        self.maxMessagePayloadSize = 0
        try:
            self.handle_reply(message)
        except Disconnected as error:
            raise ClientGone("the client disconnected") from error
        finally:
            self.maxMessagePayloadSize = limit
            del self.transport.bufferSize
        await self._writable.wait()
        if self._lost:
            raise ClientGone("the client disconnected")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        """Hand a message to the consumer; stop reading while it lags behind."""
        super().onMessage(payload, isBinary)
        if self.application_queue.qsize() >= INBOX_MAX:
            self.transport.pauseProducing()
            self._resume_later()

    def _resume_later(self) -> None:
        asyncio.get_running_loop().call_later(POLL_INTERVAL, self._resume_reading)

    def _resume_reading(self) -> None:
        if self.application_queue.qsize() < INBOX_MAX // 2:
            self.transport.resumeProducing()
        else:
            self._resume_later()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N802, N803
        """Let a waiting `send` know, and tell the consumer."""
        self._lost = True
        if hasattr(self, "_writable"):
            self._writable.set()
        super().onClose(wasClean, code, reason)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Daphne's, with what it leaves out: the reason of a close."""
        if message["type"] == "websocket.close" and self.state == self.STATE_OPEN:
            self.sendClose(code=message.get("code", 1000), reason=message.get("reason") or None)
        else:
            super().handle_reply(message)


class TcpProtocol(asyncio.Protocol):
    """One raw-TCP connection as an ASGI application of scope type `tcp`.

    Events in: `tcp.connect`, `tcp.receive` (bytes), `tcp.disconnect`. Out: `tcp.send` (bytes),
    which returns when the kernel has them, and `tcp.close`.
    """

    def __init__(self, server: "ImgoServer") -> None:
        self.server = server
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.transport: asyncio.Transport
        self.is_paused = False
        self.is_closing = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the application."""
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(0)  # `resume_writing` means: all of it is gone
        scope = {
            "type": "tcp",
            "asgi": {"version": "3.0"},
            # None when the client has gone already.
            "client": list((transport.get_extra_info("peername") or ("", 0))[:2]),
            "server": list(transport.get_extra_info("sockname")[:2]),
        }
        self.inbox.put_nowait({"type": "tcp.connect"})
        self.server.run_tcp(self, scope)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the consumer; stop reading while it lags behind."""
        if self.is_closing:
            return
        self.inbox.put_nowait({"type": "tcp.receive", "bytes": data})
        if not self.is_paused and self.inbox.qsize() >= INBOX_MAX:
            self.is_paused = True
            self.transport.pause_reading()

    async def receive(self) -> dict[str, Any]:
        """The application's `receive`."""
        event = await self.inbox.get()
        if self.is_paused and self.inbox.qsize() < INBOX_MAX // 2 and not self.is_lost:
            self.is_paused = False
            self.transport.resume_reading()
        return event

    async def send(self, event: dict[str, Any]) -> None:
        """The application's `send`. Raises `ClientGone`."""
        if self.is_lost or self.is_closing or self.transport.is_closing():
            raise ClientGone("the client disconnected")
        if event["type"] == "tcp.send":
            self.transport.write(event["bytes"])
            await self.writable.wait()
            if self.is_lost:
                raise ClientGone("the client disconnected")
        elif event["type"] == "tcp.close":
            # Our end alone: closing at once would reset a connection whose peer is still sending,
            # and what it has not read yet would be lost to it.
            self.is_closing = True
            self.transport.write_eof()
            self.transport.resume_reading()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.transport.abort)
        else:
            raise ValueError(f"unknown event type {event['type']!r}")

    def pause_writing(self) -> None:
        """The transport has bytes that the kernel did not take."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The kernel has everything."""
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is a goodbye
        """Let a waiting `send` know, and tell the consumer."""
        self.is_lost = True
        self.writable.set()
        self.inbox.put_nowait({"type": "tcp.disconnect"})


class ImgoServer(Server):  # type: ignore[misc]
    """Listens for HTTP, WebSocket and raw TCP, and holds this process's node."""

    def __init__(self, application: Any) -> None:
        message_max = 8 * conf.MAX_CLIENT_BODY + 4096  # every character of a text may be escaped
        super().__init__(
            application,
            endpoints=["tcp:port=0"],  # it wants one, which is taken away again
            # The protocol has its own heartbeat; a client that answers no ping may be alive.
            ping_interval=NEVER,
            websocket_timeout=-1,
            # A request whose client has gone ends by itself and gives its database connection back;
            # ended from outside, while the database is silent, it would keep that for ever.
            application_close_timeout=NEVER,
            websocket_max_message_size=message_max,
            websocket_max_frame_size=message_max,
            verbosity=1,
            ready_callable=self._before_start,
            server_name="imgo",
            signal_handlers=False,  # `Shutdown` has its own
        )
        self.endpoints: list[str] = []  # `listen_http` listens, at every address of HOST
        self.failure = ""
        self.admission = Admission()
        self.gate = BodyGate()
        self.bodies = Bodies(self.gate)
        self._is_accepting = True
        self.loop: asyncio.AbstractEventLoop
        self.care: Care
        self._listener: TcpListener | None = None
        self._tcp: list[asyncio.Server] = []
        self._applications = Background("Exception inside application")
        self._runtime = Runtime()
        self._shutdown = Shutdown("the server")
        self._opening: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._ports: list[Any] = []  # Twisted's, that are listened on

    def run(self) -> None:
        """Serve until stopped; afterwards `failure` says why it could not go on, if so."""
        health.starting()
        self._shutdown.on_signals(lambda: reactor.callFromThread(self.stop))
        super().run()
        self.gate.close()
        if not database_threads.close_all(THREADS_TIMEOUT):
            logger.warning("the database does not answer: its calls under way are left behind")

    def _before_start(self) -> None:
        self.ws_factory.protocol = SessionProtocol
        # A close frame says why; without this autobahn cuts the connection at a client's mistake.
        self.ws_factory.setProtocolOptions(failByDrop=False, allowNullOrigin=True)
        self.http_factory.timeOut = conf.HANDSHAKE_TIMEOUT  # for half a request, or none
        self.http_factory.protocol = Channel
        self._build_http = self.http_factory.buildProtocol
        self.http_factory.buildProtocol = self._build_channel
        reactor.callWhenRunning(self._open)

    def _build_channel(self, address: Any) -> Any:
        """Return the protocol of a connection that was accepted; pause when there are too many."""
        if not self.has_room():
            self._pause_accepting()
        protocol = self._build_http(address)
        protocol.requestFactory = DirectRequest if conf.HANDOVER else NodeRequest
        return protocol

    def has_room(self) -> bool:
        """Return whether one more connection may be accepted."""
        return self.admission.makes_room(len(self.care.poller) + len(self.admission))

    def _pause_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for port in self._ports:
                port.stopReading()
            self.loop.call_later(ROOM_PAUSE, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if not self.has_room():
            self.loop.call_later(ROOM_PAUSE, self._resume_accepting)
            return
        self._is_accepting = True
        for port in self._ports:
            port.startReading()

    def _open(self) -> None:
        self.loop = asyncio.get_event_loop()
        self.care = Care(self.loop, self.admission)
        self._listen_http()
        self._opening = self.loop.create_task(self._open_rest())
        health.watch(self._runtime.failing)

    def _listen_http(self) -> None:
        try:
            for port in listen_http(self.http_factory):
                self.listen_success(port)
        except OSError as error:
            self._fail(f"{error.strerror or error} (IMGO_HTTP_PORT, IMGO_WS_PORT)")

    async def _listen_tcp(self) -> None:
        if conf.TCP_PORT and conf.HANDOVER:
            self._listener = TcpListener(self, self.care)
        elif conf.TCP_PORT:
            for sock in listen(conf.TCP_PORT, shared=conf.REUSE_PORT):
                self._tcp.append(
                    await self.loop.create_server(lambda: TcpProtocol(self), sock=sock)
                )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.care.tick()
            metrics.node.note_now_and_then()
            pool.note_now_and_then()

    async def _open_rest(self) -> None:
        """Start the node and the TCP listener; then everything listens."""
        self._runtime.keep("ticking", self._tick)  # needs the running loop
        try:
            node = await get_node()
            await node.upkeep.warm_up()
            if conf.REUSE_PORT:
                # Whoever else listens takes what comes; here it would be refused.
                node.hub.on_drain = partial(self._drain_shared, node)
                node.hub.on_undrain = partial(self._undrain_shared, node)
            await self._listen_tcp()
            collector.calm()
            health.started()
            logger.info("node %s (%s) has started on %s", node.name, node.id, _addresses())
        except OSError as error:
            self._fail(f"{error.strerror or error} (IMGO_TCP_PORT={conf.TCP_PORT})")
        except ImgoError as error:
            self._fail(f"the node could not be started: {error.message}")
        except Exception as error:
            logger.exception("the node could not be started")
            self._fail(f"the node could not be started: {error}")

    def listen_success(self, port: Any) -> None:
        """A port is listened on."""
        self._ports.append(port)
        super().listen_success(port)

    def listen_error(self, failure: Any) -> None:
        """A port cannot be listened on: say which setting to change, and stop."""
        self._fail(f"{failure.getErrorMessage()} (IMGO_HTTP_PORT, IMGO_WS_PORT)")

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.stop()

    def stop(self) -> None:
        """Begin the shutdown; does nothing if it has begun."""
        self._shutdown.begin(self.failure or "it was told to")
        if not self._is_stopping:
            self._is_stopping = True
            super().stop()

    def run_tcp(self, protocol: TcpProtocol, scope: dict[str, Any]) -> None:
        """Run the application for a TCP connection."""
        application = self.application(scope, protocol.receive, protocol.send)
        task = self._applications.run(application)
        task.add_done_callback(lambda _: self._tcp_done(protocol))

    @staticmethod
    def _tcp_done(protocol: TcpProtocol) -> None:
        if not (protocol.is_lost or protocol.is_closing or protocol.transport.is_closing()):
            protocol.transport.abort()

    def run_link(self, link: SocketLink, scope: dict[str, Any]) -> None:
        """Run the application for a direct link; it ends when the session is open."""
        application = self.application(scope_of(scope, link), link.receive, link.send)
        task = self._applications.run(application)
        task.add_done_callback(lambda done: self._link_done(done, link))

    @staticmethod
    def _link_done(task: "asyncio.Task[None]", link: SocketLink) -> None:
        if not task.cancelled() and task.exception() is not None:
            link.lose()

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Daphne's `send`, but a WebSocket's waits for the kernel and tells of a client gone."""
        if not isinstance(protocol, SessionProtocol):
            await super().handle_reply(protocol, message)
            await protocol.drained()
            return
        details = self.connections.get(protocol)
        if details is None or details.get("disconnected"):
            raise ClientGone("the client disconnected")
        if message["type"] == "websocket.send":
            await protocol.send_now(message)
        else:
            protocol.handle_reply(message)

    def kill_all_applications(self) -> defer.Deferred[None]:
        """Before the reactor stops: close sessions with a reason, then end what is left."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._shut()))

    async def _drain_shared(self, node: Node) -> None:
        self._stop_listening()
        await node.drain_on_order()

    async def _undrain_shared(self, node: Node) -> None:
        await node.undrain()
        if not node.is_draining and not self._ports:
            self._listen_http()
            await self._listen_tcp()

    def _stop_listening(self) -> None:
        for port in self._ports:
            port.stopListening()
        self._ports.clear()
        for server in self._tcp:
            server.close()
        self._tcp.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _shut(self) -> None:
        """Stop everything in reverse order of its start, within the time of `Shutdown`."""
        self._shutdown.begin("the reactor stops")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + conf.DRAIN_SECONDS + NODE_TIMEOUT
        health.stopping()
        self._stop_listening()
        if self._opening is not None:
            await asyncio.wait([self._opening], timeout=OPENING_TIMEOUT)
            self._opening.cancel()
        self._stop_listening()  # what was opened meanwhile
        await finish(stop_node(OPENING_TIMEOUT), deadline, "the node")
        await self._end_applications()
        await self._runtime.stop(deadline)
        self.care.close()
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
    """Return what this node listens on, for the log."""
    ports = {"HTTP": conf.HTTP_PORT, "WebSocket": conf.WS_PORT, "TCP": conf.TCP_PORT}
    return ", ".join(f"{name} {conf.HOST}:{port}" for name, port in ports.items() if port)
