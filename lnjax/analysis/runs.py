"""Opening a run that is going on, finished, diverged or interrupted."""

from functools import cached_property
from pathlib import Path
from typing import Any

from lnjax.training import checkpoints, records


class Run:
    """A run's directory, read when asked for.

    Attributes:
      path: the directory.
      config: the resolved configuration, as nested dicts.
      record: all of config.json: also versions, commit, devices, the data's fingerprint.
      result: result.json, or None while the run goes on.
      telemetry: an `xarray.Dataset` (see lnjax.telemetry.history.dataset).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        record = records.read_config(self.path)
        if record is None:
            raise FileNotFoundError(
                f"{path} is not a run: it has no config.json. Give the --workdir of a run."
            )
        self.record: dict[str, Any] = record

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.record["config"]

    @property
    def result(self) -> dict[str, Any] | None:
        """How the run ended, None if it has not."""
        return records.read_result(self.path)

    @cached_property
    def telemetry(self):
        """The recorded history.

        Raises:
          FileNotFoundError: nothing has been recorded yet.
        """
        data = checkpoints.read_telemetry(self.path)
        if data is None:
            raise FileNotFoundError(f"{self.path} has no telemetry yet: no checkpoint was reached")
        return data

    def state(self, step: int | None = None) -> dict[str, Any]:
        """A saved state as nested dicts of NumPy arrays; the newest by default.

        Raises:
          FileNotFoundError: it was not saved, or not kept.
        """
        return checkpoints.read_state(self.path, step)

    def __repr__(self) -> str:
        model, result = self.config["model"], self.result
        status = "running" if result is None else f"{result['status']} at step {result['step']}"
        return f"Run({str(self.path)!r}: {model['placement']}, depth {model['depth']}, {status})"


def open(workdir: str | Path) -> Run:
    """Open a run by its directory.

    Raises:
      FileNotFoundError: the directory holds no run.
    """
    return Run(workdir)
