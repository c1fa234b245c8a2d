"""Networks with a known answer: broken ones, each with the check that must name it, and sound ones that must pass.

`python -m dropout_testing.zoo` judges them all and prints a table.
"""

from dropout_testing.zoo.broken import BROKEN as OWN_BROKEN
from dropout_testing.zoo.broken import CLASSES, FEATURES
from dropout_testing.zoo.candidates import add_mc, add_onnx, candidate, config_of, export, heldout_of, seal, write_heldout
from dropout_testing.zoo.entries import Broken, Sound
from dropout_testing.zoo.fresh import FRESH_BROKEN, FRESH_SOUND
from dropout_testing.zoo.sound import SOUND as OWN_SOUND

BROKEN = OWN_BROKEN | FRESH_BROKEN
SOUND = OWN_SOUND | FRESH_SOUND
"""With the twenty that were written by fresh eyes after the checks were frozen: FRESH.md tells what came of them the first time."""

__all__ = [
    "BROKEN", "CLASSES", "FEATURES", "SOUND", "add_mc", "add_onnx", "animals", "candidate", "config_of", "export", "heldout_of", "seal",
    "write_heldout",
]


def animals(*parts: str) -> dict[str, Broken | Sound]:
    """Every animal, or those whose name holds one of `parts`."""
    both: dict[str, Broken | Sound] = {**{f"{name} (broken)": animal for name, animal in BROKEN.items()}, **SOUND}
    return {name: animal for name, animal in both.items() if not parts or any(part in name for part in parts)}
