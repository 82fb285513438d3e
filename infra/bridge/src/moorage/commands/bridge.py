"""moorage bridge: run a bridge."""

from pathlib import Path

import click

from moorage.commands.units import unit_option

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(context_settings={"auto_envvar_prefix": "MOORAGE_BRIDGE"})
@click.option("--api", required=True, help="The control plane: https://host.")
@click.option("--state", required=True, type=FOLDER, help="Folder in which the bridge keeps the node's ID.")
@click.option(
    "--certs", required=True, type=FOLDER, help="Folder with bridge.pem, bridge-key.pem, ca.pem, refused.txt."
)
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where the worker's calls come in.")
@click.option("--advertise", default=None, metavar="HOST:PORT", help="Where the worker calls; default: --listen.")
@click.option("--plugin", "plugins", multiple=True, required=True, metavar="ID=unix:///SOCKET", help="Repeatable.")
@click.option("--serialize", multiple=True, metavar="ID=node|plugin", help="One call at a time per node or plugin.")
@click.option("--deadline", "deadlines", multiple=True, metavar="ID:RPC=SECONDS", help="Deadline of an RPC.")
@click.option("--grace", "graces", multiple=True, metavar="ID=SECONDS", help="How long a call may land late.")
@click.option(
    "--mounts-below",
    multiple=True,
    type=FOLDER,
    metavar="DIR",
    help="Where claims may have volumes mounted, besides the state folder; repeatable.",
)
@click.option("--probe-every", type=click.FloatRange(min=0.1), default=10.0, help="Seconds between looks at a plugin.")
@click.option("--drain", type=click.FloatRange(min=0), default=30.0, help="Seconds that calls have to end at a stop.")
@click.option("--renew-from", type=FOLDER, default=None, help="CA folder to renew the bridge's certificate from.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info")
@unit_option("moorage-bridge.service")
def bridge(  # noqa: PLR0913 - one parameter per option
    *,
    api: str,
    state: Path,
    certs: Path,
    listen: str,
    advertise: str | None,
    plugins: tuple[str, ...],
    serialize: tuple[str, ...],
    deadlines: tuple[str, ...],
    graces: tuple[str, ...],
    mounts_below: tuple[Path, ...],
    probe_every: float,
    drain: float,
    renew_from: Path | None,
    log_level: str,
) -> None:
    """Relay CSI calls from the control plane to plugins on this machine.

    Every option can also come from the environment: MOORAGE_BRIDGE_API and so on, repeated ones separated by spaces.
    """
    import asyncio

    from moorage.bridge import log, settings
    from moorage.bridge.run import run
    from moorage.certificates import CertificateTrouble

    try:
        chosen = settings.Settings(
            api=settings.parse_api(api),
            state=state,
            certs=certs,
            listen=listen,
            advertise=advertise,
            plugins=settings.parse_plugins(plugins, serialize, deadlines, graces),
            probe_seconds=probe_every,
            drain_seconds=drain,
            renew_from=renew_from,
            mounts_below=settings.parse_mounts_below(mounts_below),
        )
        log.start(log_level)
        asyncio.run(run(chosen))
    except (settings.BadSetting, CertificateTrouble) as exc:
        raise click.ClickException(str(exc)) from exc
