"""What runs in the cage: loads a file by its own code, judges the module in it, and writes the report to the given descriptor.

From `load` on, everything here can be changed by the file's code; the parent takes the answer as that code's word.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from dropout_trainer.gate.formats.pickled import load
from dropout_trainer.gate.local import Options, judge_module
from dropout_trainer.gate.verdict import RefusedError


def main(descriptor: int) -> int:
    question = json.load(sys.stdin)
    sys.stdin.close()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answer = {"token": question.pop("token"), **_judged(**question)}
    with os.fdopen(descriptor, "w") as pipe:
        json.dump(answer, pipe)
    return 0


def _judged(model: str, example: str | None, options: dict[str, Any]) -> dict[str, Any]:
    try:
        module, call = load(Path(model), Path(example) if example else None)
        return {"report": judge_module(module, call, Options(**options)).to_wire()}
    except RefusedError as error:
        return {"refused": [error.evidence, error.remedy]}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
