"""The bridge's state folder: the node's ID, the API's address, and a lock so that only one bridge uses it."""

from pathlib import Path
from typing import IO

from moorage.bridge.settings import BadSetting
from moorage.files import Folder, read_whole, write_whole


class State:
    """One state folder, locked for this bridge."""

    def __init__(self, folder: Path, node_id: str) -> None:
        """Lock the folder for `node_id`, which the certificate names. Raises BadSetting."""
        self._folder = folder
        self._lock = self._take()
        self.was_used = False
        """Whether a bridge used the folder before."""
        try:
            self._check_node_id(node_id)
        except BaseException:
            self.release()
            raise

    def keep_api(self, url: str) -> None:
        """Write the control plane's address, for the commands on this machine (`moorage mount`)."""
        write_whole(self._folder / "api", f"{url}\n".encode(), mode=0o600)

    def release(self) -> None:
        """Unlock the folder for another bridge."""
        self._lock.close()

    def _check_node_id(self, node_id: str) -> None:
        kept = self._read_node_id()
        self.was_used = kept is not None
        if kept is None:
            write_whole(self._folder / "node-id", f"{node_id}\n".encode(), mode=0o600)
        elif kept != node_id:
            raise BadSetting(
                f"{self._folder} belongs to node {kept} and the certificate is for {node_id}: issue one for {kept} "
                "(moorage certs bridge), or use another --state if this is a new node"
            )

    def _take(self) -> IO[bytes]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with Folder.open(self._folder) as folder:
                lock = folder.lock("lock")
        except OSError as exc:
            raise BadSetting(f"--state {self._folder} cannot be used: {exc.strerror}") from exc
        if lock is None:
            raise BadSetting(f"another bridge runs on {self._folder}: stop it, or use another --state")
        return lock

    def _read_node_id(self) -> str | None:
        try:
            return read_whole(self._folder / "node-id").decode().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise BadSetting(f"{self._folder / 'node-id'} cannot be read: {exc}") from exc
