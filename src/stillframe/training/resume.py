"""What an unfinished training leaves behind, and when it may be taken up again.

DVC deletes a stage's outs before it runs the stage, so the state lies outside them, in `.resume/<fingerprint>/`, where
the fingerprint covers parameters, data and code: another configuration never resumes this one's state.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from stillframe.paths import RESUME, read_json, replacing, write_json

NEVER_MATTER = ("trainer.resume_anyway", "trainer.checkpoint_seconds", "tracking")
BLOCKS, BLOCK = 64, 1 << 20
MOST, WIDEST = 3, 40  # differences that a note names, and the characters of a value


def _digest(path: Path) -> str:
    """sha256 over the size and 64 blocks of 1 MiB spread over the file: seconds even for a terabyte."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for block in range(BLOCKS):
            file.seek(max(0, (size - BLOCK) * block // (BLOCKS - 1)))
            digest.update(file.read(BLOCK))
            if size <= BLOCK:
                break
    return digest.hexdigest()


def inputs_of(params: dict[str, Any], data: list[Path], code: list[Path]) -> dict[str, Any]:
    """Everything a training depends on, flat: `{"optim.lr": 0.001, "data:...": sha256, "code:...": sha256}`."""
    facts = {key: value for key, value in params.items() if not key.startswith(NEVER_MATTER)}
    facts |= {f"data:{path}": _digest(path) for path in data}
    facts |= {f"code:{path.parent.name}/{path.name}": _digest(path) for path in code}
    facts["code:torch"] = torch.__version__
    return facts


def fingerprint(inputs: dict[str, Any]) -> str:
    """16 hexadecimal digits over the inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _short(value: Any) -> str:
    """A value as a line can hold it; a sha256 by its first 8 digits."""
    if isinstance(value, str) and len(value) == 64:
        return value[:8]
    text = repr(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def listed(changed: dict[str, str]) -> str:
    """Differences in one line: how many, and the first few, parameters before data before code."""
    order = sorted(changed, key=lambda key: (key.startswith("code:"), key.startswith("data:"), key))
    first = [f"{key}: {changed[key]}" for key in order[:MOST]]
    more = [f"and {len(order) - MOST} more"] if len(order) > MOST else []
    return f"{len(order)} of its inputs differ: {', '.join(first + more)}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Key -> "old -> new", shortened, where two sets of inputs differ."""
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    return {key: f"{_short(old.get(key))} -> {_short(new.get(key))}" for key in keys}


@dataclass(frozen=True)
class ResumeState:
    """The folder with one training's resume state."""

    folder: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint; there is none before the first was written."""
        return self.folder / "last.ckpt"

    @property
    def state(self) -> Path:
        """Decisions that a resumed run must not make anew: precision, learning rate found, run id."""
        return self.folder / "state.json"

    def remember(self, **values: Any) -> None:
        """Add to the state."""
        write_json(self.state, {**self.recall(), **values})

    def recall(self) -> dict[str, Any]:
        """The state so far."""
        return dict(read_json(self.state)) if self.state.exists() else {}


def find_state(inputs: dict[str, Any], allowed: list[str], root: Path = RESUME) -> tuple[ResumeState, list[str]]:
    """The state of these inputs, and what to tell the user about other unfinished trainings.

    A training with other inputs is resumed only when every difference is named in `allowed` (trainer.resume_anyway).
    """
    own = ResumeState(root / fingerprint(inputs))
    notes: list[str] = []
    if not own.last.exists():
        for other in sorted(root.glob("*/inputs.json")):
            state = ResumeState(other.parent)
            if not state.last.exists():
                continue
            changed = differences(read_json(other), inputs)
            if changed and set(changed) <= set(allowed):
                return state, [
                    f"resuming {state.folder} although it differs in {', '.join(changed)}: trainer.resume_anyway"
                ]
            notes.append(f"the unfinished training in {state.folder} is not resumed, {listed(changed)}")
    own.folder.mkdir(parents=True, exist_ok=True)
    write_json(own.folder / "inputs.json", inputs)
    return own, notes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there: temporary name, fsync, rename; nothing in them is executed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint; nothing in it is executed.

        Raises:
            ValueError: it is damaged, or holds objects that only running code could load; names the file.
        """
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # pickle.UnpicklingError and its kin, zip and zlib errors
            raise ValueError(
                f"{path} is damaged or holds more than tensors, and was not loaded ({type(error).__name__}): delete "
                f"{Path(path).parent}, and the training begins anew"
            ) from None
