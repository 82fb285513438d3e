"""Generate the CSI stubs from the one csi.proto, for the control plane and for the bridge's package: `make stubs`."""

import re
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "chalicelib" / "csi" / "spec"
TARGETS = (SPEC, ROOT / "infra" / "bridge" / "moorage" / "spec")


def generate(target: Path) -> None:
    """Write csi_pb2.py and csi_pb2.pyi into `target`; the bytes of the descriptor are the same in both packages, so one process may load both."""
    well_known = str(files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{SPEC}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}", "csi.proto"]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc could not read csi.proto: its message above says where")
    module = target / "csi_pb2.py"
    # The generated module says which protoc made it; keep that, drop the trailing spaces that editors would fight over.
    module.write_text(re.sub(r"[ \t]+\n", "\n", module.read_text()))


if __name__ == "__main__":
    for folder in TARGETS:
        folder.mkdir(parents=True, exist_ok=True)
        generate(folder)
        sys.stdout.write(f"wrote {folder.relative_to(ROOT)}/csi_pb2.py\n")
