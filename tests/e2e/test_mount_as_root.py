"""moorage mount on real parts, with bind mounts: as root in a mount namespace of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]

HERE = Path(__file__).parent


def test_as_root_with_bind_mounts_in_a_mount_namespace_of_its_own(tmp_path: Path) -> None:
    """A user namespace makes anybody root in it; where the kernel forbids that, this fails and says so."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    allowed = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False, timeout=10)
    assert allowed.returncode == 0, f"this kernel forbids user namespaces, which this test needs: {allowed.stderr}"
    command = [*unshare, sys.executable, str(HERE / "mounting_as_root.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all is well"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
