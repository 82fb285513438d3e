"""Put the parts of a bridge together, run them until a signal, and stop them in order."""

import asyncio
import datetime as dt
import logging
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from moorage import certificates
from moorage.bridge.admission import Admission
from moorage.bridge.bounds import Bounds
from moorage.bridge.guard import Guard
from moorage.bridge.leases import Leases
from moorage.bridge.registration import Registration
from moorage.bridge.relay import LARGEST_MESSAGE, Relay, Route
from moorage.bridge.settings import BadSetting, Settings, parse_address
from moorage.bridge.state import State
from moorage.bridge.tls import OwnCertificate
from moorage.bridge.uses import UseJournal
from moorage.bridge.watch import Watch, plugin_json
from moorage.certificates import CertificateTrouble
from moorage.mounts.api import TOKEN_FILE, connected
from moorage.mounts.journal import Journal, JournalTrouble

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.so_reuseport", 0),
    # Connections end once an hour, so that new certificates and a new CA are used. Calls in flight may end first.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 400_000),
    # Workers ping during long calls; the default would take more than one ping in five minutes for an attack.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
)
CERTIFICATE_SECONDS: Final = 3600.0
log: Final = logging.getLogger(__name__)


@dataclass
class Bridge:
    """A running bridge."""

    settings: Settings
    certificate: OwnCertificate
    state: State
    server: grpc.aio.Server
    address: str
    registration: Registration
    watches: list[Watch]
    journal: Journal
    guard: Guard

    @classmethod
    async def start(cls, settings: Settings) -> "Bridge":
        """Listen, and look at every plugin once. Raises BadSetting and CertificateTrouble."""
        certificate = OwnCertificate(settings.certs)
        state = State(settings.state, certificate.current().issued.node_id or "")
        try:
            state.keep_api(settings.api)
            return await cls._start(settings, certificate, state)
        except BaseException:
            state.release()
            raise

    @classmethod
    async def _start(cls, settings: Settings, certificate: OwnCertificate, state: State) -> "Bridge":
        issued = certificate.current().issued
        admission = Admission(certificate.refused)
        journal = _open_journal(settings.state)
        uses = UseJournal(settings.state.resolve(), upgraded=state.was_used)
        guard = Guard(Bounds(settings.state, settings.mounts_below, journal), uses)
        watches: list[Watch] = []
        server = grpc.aio.server(options=SERVER_OPTIONS)
        address = _advertised_address(settings, _listen(server, settings.listen, certificate))
        registration = Registration(
            api=settings.api,
            node_id=issued.node_id or "",
            node_name=socket.gethostname(),
            address=address,
            tls=certificate.current,
            plugins=lambda: [plugin_json(watch) for watch in watches],
            refuse=admission.refuse,
        )
        for one in settings.plugins:
            watches.append(Watch(one, registration.changed, every=settings.probe_seconds))  # noqa: PERF401 - read above
        routes = {one.settings.plugin_id: Route(one.settings.plugin_id, one.channel, one.look_now) for one in watches}
        server.add_generic_rpc_handlers((Relay(routes, admission, guard),))
        await asyncio.gather(*(watch.look() for watch in watches))
        await server.start()
        extra = {"node": issued.node_id, "address": address, "serial": issued.serial, "until": issued.ends}
        log.info("listening", extra=extra)
        return cls(settings, certificate, state, server, address, registration, watches, journal, guard)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then deregister, let calls end, and close."""
        tasks = [asyncio.create_task(watch.run()) for watch in self.watches]
        tasks += [asyncio.create_task(self.registration.run()), asyncio.create_task(self._look_after_certificate())]
        tasks.append(asyncio.create_task(self._look_after_mounts()))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
        await self.close()
        for task in done - {stopping}:  # a part that ended by itself is a bug of ours: end with its traceback
            task.result()

    async def close(self) -> None:
        """Deregister, let calls in flight end within `drain_seconds`, and close."""
        await self.registration.farewell()
        await self.server.stop(self.settings.drain_seconds)
        await asyncio.gather(*(watch.channel.close() for watch in self.watches))
        self.state.release()
        log.info("stopped")

    async def _look_after_mounts(self) -> None:
        """Renew the leases of what `moorage mount` mounted here, and unmount what is no longer ours."""
        watches = {watch.settings.plugin_id: watch for watch in self.watches}
        async with connected(self.settings.api, self.settings.state / TOKEN_FILE) as api:
            await Leases(self.journal, api, watches, self.guard).run()

    async def _look_after_certificate(self) -> None:
        """Renew the certificate in time if the CA is on this machine, or else warn."""
        while True:
            issued = self.certificate.current().issued
            if issued.is_due(dt.datetime.now(dt.UTC)):
                await asyncio.to_thread(self._renew_or_warn, issued)
            await asyncio.sleep(CERTIFICATE_SECONDS)

    def _renew_or_warn(self, issued: certificates.Certificate) -> None:
        if self.settings.renew_from is None:
            log.warning("certificate ends soon: renew it (moorage certs renew)", extra={"until": issued.ends})
            return
        try:
            life = issued.ends - issued.certificate.not_valid_before_utc
            now = dt.datetime.now(dt.UTC)
            certificates.renew(self.settings.renew_from, self.settings.certs, days=max(1, life.days), now=now)
        except (CertificateTrouble, OSError) as exc:
            log.error("certificate not renewed", extra={"reason": str(exc), "until": issued.ends})  # noqa: TRY400
        else:
            self.certificate.current()


async def run(settings: Settings) -> None:
    """Run a bridge until SIGTERM or SIGINT. Raises BadSetting and CertificateTrouble."""
    bridge = await Bridge.start(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _tell_systemd("READY=1")
    await bridge.run(stop)


def _open_journal(state: Path) -> Journal:
    """Open the journal of `moorage mount`. Raises BadSetting."""
    journal = Journal(state)
    try:
        journal.open()
    except JournalTrouble as exc:
        raise BadSetting(str(exc)) from exc
    return journal


def _listen(server: grpc.aio.Server, listen: str, certificate: OwnCertificate) -> str:
    """Listen, and return host and port. Port 0 takes any free one. Raises BadSetting."""
    host, port = parse_address(listen, "--listen")
    try:
        taken = server.add_secure_port(f"{host}:{port}", certificate.server_credentials())
    except RuntimeError as exc:
        raise BadSetting(
            f"--listen {listen} cannot be listened on: is the port in use, and is the address one of this host?"
        ) from exc
    return f"{host}:{taken}"


def _advertised_address(settings: Settings, taken: str) -> str:
    if settings.advertise is not None:
        parse_address(settings.advertise, "--advertise")
        return settings.advertise
    if parse_address(taken, "--listen")[0] in ("0.0.0.0", "[::]"):  # noqa: S104 - refused here, not bound
        raise BadSetting(f"--listen {settings.listen} is no address to call: add --advertise HOST:PORT")
    return taken


def _tell_systemd(state: str) -> None:
    """Tell systemd the state if it asked for it (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
