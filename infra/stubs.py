"""Write the CSI stubs of the control plane and of the bridge from one csi.proto: `python -m infra.stubs [--check]`.

Both packages get the same descriptor under the same file name, so that both can be loaded into one process.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc_tools
from grpc_tools import protoc

ROOT: Final = Path(__file__).resolve().parents[1]
PROTO: Final = ROOT / "chalicelib" / "csi" / "spec" / "csi.proto"
PACKAGES: Final = {
    "chalicelib.csi.spec": PROTO.parent,
    "moorage.spec": ROOT / "infra" / "bridge" / "src" / "moorage" / "spec",
}
_IMPORT: Final = re.compile(r"^import csi_pb2 as (\w+)$", re.MULTILINE)


def generate() -> dict[Path, str]:
    """Return path and content of every stub that grpcio-tools makes. Raises RuntimeError if csi.proto is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        includes = [f"-I{PROTO.parent}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
        outputs = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *includes, *outputs, PROTO.name]) != 0:
            raise RuntimeError(f"{PROTO.relative_to(ROOT)} does not compile: see the lines above")
        texts = {path.name: path.read_text() for path in sorted(out.iterdir())}
    return {
        folder / name: _IMPORT.sub(rf"from {package} import csi_pb2 as \1", text)
        for package, folder in PACKAGES.items()
        for name, text in texts.items()
    }


def stale() -> list[Path]:
    """Return the committed stubs that are not what csi.proto gives."""
    return [path for path, text in generate().items() if not path.is_file() or path.read_text() != text]


def main(arguments: Sequence[str]) -> int:
    """Write the stubs, or with --check only say which are out of date. Return the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m infra.stubs [--check]\n")
        return 2
    if arguments:
        old = [str(path.relative_to(ROOT)) for path in stale()]
        if old:
            sys.stderr.write(f"out of date, run `python -m infra.stubs`: {', '.join(old)}\n")
        return 1 if old else 0
    for path, text in generate().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
