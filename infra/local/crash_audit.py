"""The audit after a crash: say in one line whether plugins and tables still agree."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.local import certificates, clock, say
from infra.local.plugins import usable_plugins

if TYPE_CHECKING:
    from infra.local.settings import Settings

DONE_WITHIN: Final = 40.0
PAUSE: Final = 2.0
"""Seconds between two looks whether the plugins can be asked."""


@dataclass
class CrashAudit:
    """An audit that is made once after each crash of the emulator or of the whole system."""

    settings: Settings
    needed: bool = False
    """Set after a crash."""
    _next_look: float = 0.0

    def run_if_possible(self) -> None:
        """Audit if it is needed and every plugin has answered.

        After a crash of the emulator, the plugins are usable at the bridge's next heartbeat only.
        """
        if not self.needed or clock.monotonic() < self._next_look:
            return
        self._next_look = clock.monotonic() + PAUSE
        if not usable_plugins(self.settings.api_url).issuperset(self.settings.plugin_ids):
            return
        self.needed = False
        with say.step("Comparing the plugins' volumes with the tables, after the unclean stop"):
            audit = subprocess.run(
                [certificates.command("moorage"), "audit", "--api", self.settings.api_url, "--json", "--wait", "20"],
                env=self.settings.environment(),
                capture_output=True,
                text=True,
                timeout=DONE_WITHIN,
                check=False,
            )
        say.line("  " + result(self.settings.api_url, audit.stdout, audit.stderr))


def result(api_url: str, output: str, trouble: str) -> str:
    """Return one line about the output of `moorage audit --json`."""
    try:
        audited = json.loads(output)
    except ValueError:
        return f"Not audited: {' '.join(trouble.split()) or 'moorage audit said nothing'}"
    failed = [f"{report['PluginID']}: {report['Error']}" for report in audited["Reports"] if report["Status"] != "done"]
    if failed:
        return f"Not audited: {'; '.join(failed)}"
    if audited["Clean"]:
        return "Nothing is lost or left over."
    counts: dict[str, int] = {}
    for report in audited["Reports"]:
        for name, number in report["Counts"].items():
            counts[name] = counts.get(name, 0) + number
    orphans, missing = counts.get("volume orphan", 0), counts.get("volume missing", 0)
    return (
        f"Volumes that the plugins have and the tables do not: {orphans}; that the tables have and the plugins do not: "
        f"{missing}. `moorage audit --api {api_url}` shows them and can adopt them."
    )
