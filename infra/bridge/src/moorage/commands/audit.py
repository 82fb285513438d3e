"""moorage audit: compare what the providers have with what is registered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
FOUND: Final = 2
"""The exit code when something is wrong."""


@click.command()
@click.option("--api", required=True, metavar="URL", help="The control plane, e.g. http://127.0.0.1:4646.")
@click.option("--plugin", "plugins", multiple=True, metavar="ID", help="Audit this plugin; default: every plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
@click.option("--wait", default=900.0, metavar="SECONDS", help="How long an audit may take.")
@click.option("--adopt", "external_id", metavar="EXTERNAL_ID", help="Register this instead of auditing.")
@click.option("--as", "name", metavar="NAMESPACE/ID", help="What the adopted volume is called.")
@click.option("--access-mode", default="single-node-writer", help="Of the adopted volume.")
@click.option("--attachment-mode", default="file-system", help="Of the adopted volume.")
def audit(  # noqa: PLR0913, PLR0917 - an option each
    api: str,
    plugins: tuple[str, ...],
    as_json: bool,
    wait: float,
    external_id: str | None,
    name: str | None,
    access_mode: str,
    attachment_mode: str,
) -> None:
    """Compare what plugins have with what is registered, and change nothing.

    Exit code 0: nothing is wrong; 2: there are orphans (made for this control plane, and nothing names them), missing
    storage (registered, and the plugin does not have it) or clashes (several volumes name one storage, and their claims
    do not fit together); 1: the audit failed. What others made at a provider is shown as unknown and is not wrong.

    With --adopt, a volume that the plugin has becomes a registered one: --adopt vol-1 --as default/data --plugin ID.
    """
    from moorage import auditing

    if external_id is not None or name is not None:
        _adopt(api, plugins, external_id, name, (access_mode, attachment_mode))
        return
    reports = _run(_reports(api, plugins, wait))
    found = auditing.wrong(reports)
    if as_json:
        click.echo(json.dumps({"Clean": not found, "Reports": reports}, indent=2))
    else:
        for line in auditing.table(reports):
            click.echo(line)
        for report in reports:
            click.echo(auditing.summary(report))
    failed = any(report["Status"] != "done" for report in reports)
    click.get_current_context().exit(FOUND if found else int(failed))


def _adopt(
    api: str, plugins: tuple[str, ...], external_id: str | None, name: str | None, modes: tuple[str, str]
) -> None:
    from moorage import auditing

    namespace, slash, volume_id = (name or "").partition("/")
    if not external_id or not namespace or not slash or not volume_id or len(plugins) != 1:
        raise click.ClickException(
            "an adoption needs all of --adopt EXTERNAL_ID, --as NAMESPACE/ID and one --plugin ID"
        )
    wanted = auditing.Adoption(plugins[0], external_id, namespace, volume_id, *modes)

    async def adopt() -> None:
        async with auditing.connected(api) as connected:
            await connected.adopt(wanted)

    _run(adopt())
    click.echo(f"{external_id} of {plugins[0]} is volume {volume_id} in namespace {namespace}")


async def _reports(api: str, plugins: tuple[str, ...], wait: float) -> list[dict[str, Any]]:
    """Return a report of each plugin, or of those that are named.

    Raises AuditTrouble for a named plugin that cannot be audited. Of others, the report says why.
    """
    from moorage import auditing

    async with auditing.connected(api) as connected:
        if plugins:
            return [await connected.audit(plugin, seconds=wait) for plugin in plugins]
        reports = []
        for plugin in await connected.plugins():
            try:
                reports.append(await connected.audit(plugin, seconds=wait))
            except auditing.AuditTrouble as exc:
                reports.append(
                    {"PluginID": plugin, "Status": "failed", "Error": str(exc), "Counts": {}, "Findings": []}
                )
        return reports


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    from moorage.auditing import AuditTrouble

    try:
        return asyncio.run(work)
    except AuditTrouble as exc:
        raise click.ClickException(str(exc)) from exc
