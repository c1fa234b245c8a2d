"""A component that has been started but is not yet its program, as on a busy machine, is not taken for one that has ended."""

import subprocess
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "hack/cluster/lib/common.sh"
STARTS = """
set -euo pipefail
state=$1/state bin=$1/bin
mkdir -p "$state/run" "$state/log"
setsid() { sleep 0.3; exec /usr/bin/env setsid "$@"; }
source "$2"
start "$3" "$state"
alive "$3" && echo lives || echo ended
kill "$(cat "$state/run/$3")" 2> /dev/null || true
"""


def test_a_program_that_lasts_lives(tmp_path: Path) -> None:
    assert told(tmp_path, "sleep 60") == "lives"


def test_one_that_cannot_be_started_has_ended(tmp_path: Path) -> None:
    assert told(tmp_path, None) == "ended"


def told(folder: Path, program: str | None) -> str:
    (folder / "bin").mkdir()
    if program:
        path = folder / "bin/program"
        path.write_text(f"#!/bin/bash\n{program}\n")
        path.chmod(0o755)
    command = ["bash", "-c", STARTS, "bash", str(folder), str(LIBRARY), "program"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
