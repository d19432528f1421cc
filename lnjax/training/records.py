"""The small JSON files of a run's directory: config.json, result.json."""

import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from lnjax.training.config import Config, difference

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "lnjax")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(_finite(content), indent=1) + "\n")
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete the file if the run may be continued without it"
        ) from error


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The content of config.json, None if there is none."""
    return _read(Path(workdir) / "config.json")


def read_result(workdir: Path) -> dict[str, Any] | None:
    """The content of result.json, None if there is none."""
    return _read(Path(workdir) / "result.json")


def forget_result(workdir: Path) -> None:
    """Remove the result of an interrupted sitting: the run goes on."""
    if jax.process_index() == 0:
        (Path(workdir) / "result.json").unlink(missing_ok=True)


def check_resume(workdir: Path, config: Config, data: Mapping[str, Any]) -> None:
    """Refuse to continue a run with another configuration, placement or corpus.

    Raises:
      ValueError: it differs; the message lists each field with its old and new value.
    """
    saved = read_config(workdir)
    if saved is None:
        return
    lines = _changes(saved, config)
    old, new = saved["data"], json.loads(json.dumps(dict(data)))
    lines += [f"data.{k}: {old.get(k)!r} -> {new[k]!r}" for k in new if old.get(k) != new[k]]
    _refuse(workdir, lines)


def check_config(workdir: Path, config: Config) -> None:
    """Like `check_resume`, without opening the data (and so without what the data decides).

    Raises:
      ValueError: the configuration or the placement differs.
    """
    saved = read_config(workdir)
    if saved is not None:
        _refuse(workdir, _changes(saved, config))


def _changes(saved: Mapping[str, Any], config: Config) -> list[str]:
    # 0 stands for what the data has, which the saved configuration says.
    sizes = {n: getattr(config.model, n) for n in ("vocab_size", "max_length")}
    config = config.with_(model={n: v or saved["config"]["model"][n] for n, v in sizes.items()})
    lines = difference(saved["config"], json.loads(json.dumps(config.to_dict())))
    return lines or _placement_changes(saved, config)


def _placement_changes(saved: Mapping[str, Any], config: Config) -> list[str]:
    """What a placement of the same name computes otherwise: equations, or the fields of those that
    are printed alike."""
    changes = difference(saved.get("placement", {}), config.placement_content())
    old, new = saved["equations"], config.model.placed.equations(config.model.depth)
    if not changes or old == new:
        return changes
    return [
        "\n    ".join([f"placement equations {when}:", *lines])
        for when, lines in (("before", old), ("now", new))
    ]


def _refuse(workdir: Path, lines: list[str]) -> None:
    if lines:
        changes = "\n  ".join(lines)
        raise ValueError(
            f"{workdir} holds a run with another configuration:\n  {changes}\n"
            "Use another --workdir, or the old values to continue it."
        )


def write_config(workdir: Path, config: Config, data: Mapping[str, Any]) -> None:
    """Write config.json: the resolved configuration, where the run began, and every sitting."""
    devices = jax.devices()
    place = {
        "commit": commit(),
        "versions": versions(),
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind}
        | {"count": len(devices), "processes": jax.process_count()},
    }
    saved = read_config(workdir) or {}
    content = {
        "config": config.to_dict(),
        "hash": config.fingerprint(),
        "equations": config.model.placed.equations(config.model.depth),
        "placement": config.placement_content(),
        "data": dict(data),
        **{name: saved.get(name, value) for name, value in place.items()},
        "sittings": [*saved.get("sittings", []), {"date": now(), **place}],
    }
    if jax.process_index() == 0:
        write_json(Path(workdir) / "config.json", content)


def now() -> str:
    """The date and time in UTC, as ISO 8601 writes it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """The commit of the source tree that lnjax runs from, "" outside its own checkout."""
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie in the work tree of another project.
    if not top or Path(top).resolve() != package.parent:
        return ""
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12")


def _git(directory: Path, *arguments: str) -> str:
    """What git prints, "" where it fails or is not installed."""
    try:
        output = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return output.stdout.strip() if output.returncode == 0 else ""


def write_result(
    workdir: Path, config: Config, *, evaluations: list[float], **fields: Any
) -> dict[str, Any]:
    """Write and return result.json, with the date on which the sitting ended."""
    finite = [x for x in evaluations if x is not None and math.isfinite(x)]
    result = {
        **fields,
        "evaluation_loss": evaluations[-1] if evaluations else None,
        "best_evaluation_loss": min(finite) if finite else None,
        "placement": config.model.placed.name,
        "depth": config.model.depth,
        "learning_rate": config.optimizer.learning_rate,
        "warmup": config.optimizer.warmup,
        "seed": config.training.seed,
        "steps": config.training.steps,
        "date": now(),
    }
    if jax.process_index() == 0:
        write_json(Path(workdir) / "result.json", result)
    return _finite(result)
