"""A run's checkpoints, by Orbax: the state, of which the newest few are kept, and the telemetry,
of which every block is kept.

A telemetry block holds the rows since the block before it and is on disk before the state of the
same step is, so a state on disk always has its whole history.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from lnjax.telemetry.history import History, dataset, layout_dict
from lnjax.telemetry.statistics import Layout
from lnjax.training.state import TrainState


def _manager(directory: Path, keep: int | None, asynchronous: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=None if keep is None else checkpoint_managers.LatestN(keep),
        enable_async_checkpointing=asynchronous,
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(directory, options=options)


def _directories(workdir: str | Path) -> tuple[Path, Path]:
    root = Path(workdir).resolve() / "checkpoints"
    return root / "state", root / "telemetry"


class Checkpoints:
    """Writes and restores the checkpoints of one run. Use as a context manager.

    Args:
      workdir: the run's directory.
      keep: number of states that are kept.
      layout: the model's weight groups, stored with the telemetry.
    """

    def __init__(self, workdir: str | Path, keep: int, layout: Layout):
        state, telemetry = _directories(workdir)
        self._state = _manager(state, keep, asynchronous=True)
        self._telemetry = _manager(telemetry, None, asynchronous=False)
        self._layout = layout_dict(layout)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._state.close()
        self._telemetry.close()

    def save(
        self, step: int, state: TrainState | None, progress: dict[str, Any], history: History
    ) -> None:
        """Write the history since the last save, then the state after `step` steps.

        Args:
          state: None writes the history only (a diverged run: its last good state is kept).
          progress: what the loop knows and the state does not hold, JSON-able.
        """
        # Over several processes, the two managers' barriers would meet. The state's manager waits
        # for its last save before the next one in any case.
        self.wait()
        block = history.block()
        if block and step not in self._telemetry.all_steps():
            items = {
                "rows": ocp.args.StandardSave(block),
                "layout": ocp.args.JsonSave(self._layout),
            }
            self._telemetry.save(step, args=ocp.args.Composite(**items), force=True)
            self._telemetry.wait_until_finished()
        if state is not None and step not in self._state.all_steps():
            items = {
                "state": ocp.args.StandardSave(state),
                "progress": ocp.args.JsonSave(progress),
            }
            self._state.save(step, args=ocp.args.Composite(**items), force=True)

    def wait(self) -> None:
        """Return when all that was saved is on disk."""
        self._state.wait_until_finished()

    def latest(self) -> int | None:
        """The step of the newest state, or None."""
        return self._state.latest_step()

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state after `step` steps, placed as `abstract` says, and the loop's progress."""
        items = self._state.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
            ),
        )
        return items["state"], items["progress"]

    def forget_after(self, step: int) -> None:
        """Drop the telemetry blocks of steps that are about to be computed again."""
        for later in [s for s in self._telemetry.all_steps() if s > step]:
            self._telemetry.delete(later)


def saved_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in a directory (Orbax renames a checkpoint when whole)."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def _reader(tree: str, json: str) -> ocp.Checkpointer:
    """What reads checkpoints of these two items without the state's classes or devices."""
    # Reading is a matter of this process alone, also where others train with it.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"read_by_{jax.process_index()}",
    )
    handlers = {
        tree: ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        json: ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    }
    composite = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone), **handlers
    )
    return ocp.Checkpointer(composite, multiprocessing_options=alone)


def _read(reader: ocp.Checkpointer, path: Path, tree: str, json: str) -> tuple[Any, Any]:
    """(the tree as nested dicts of NumPy arrays, the JSON item) of one checkpoint."""
    saved = reader.metadata(path).item_metadata[tree].tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    arguments = {tree: ocp.args.PyTreeRestore(restore_args=as_numpy), json: ocp.args.JsonRestore()}
    items = reader.restore(path, args=ocp.args.Composite(**arguments))
    return items[tree], items[json]


def read_telemetry(workdir: str | Path):
    """The whole history of a run as an `xarray.Dataset`; None if nothing was recorded yet."""
    directory = _directories(workdir)[1]
    steps = saved_steps(directory)
    if not steps:
        return None
    items = ("rows", "layout")
    with _reader(*items) as reader:
        blocks = [_read(reader, directory / str(step), *items) for step in steps]
    return dataset([rows for rows, _ in blocks], blocks[-1][1])


def read_state(workdir: str | Path, step: int | None = None) -> dict[str, Any]:
    """A saved state as nested dicts of NumPy arrays.

    Args:
      step: which one; None is the newest.

    Raises:
      FileNotFoundError: there is none; the message lists those there are.
    """
    directory = _directories(workdir)[0]
    steps = saved_steps(directory)
    if not steps or (step is not None and step not in steps):
        wanted = "no saved state" if step is None else f"no saved state of step {step}"
        raise FileNotFoundError(f"{workdir} has {wanted}; saved: {steps or 'none'}")
    items = ("state", "progress")
    with _reader(*items) as reader:
        return _read(reader, directory / str(steps[-1] if step is None else step), *items)[0]
