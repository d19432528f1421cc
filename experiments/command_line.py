"""What the experiment scripts share: flags into configurations, progress, where things were run."""

import ast
import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def configuration(**sections: dict[str, Any]):
    """A locked ConfigDict with every field of a run's configuration; `sections` replace defaults.

    A field that does not exist raises at once, and names the one that was probably meant.
    """
    from ml_collections import ConfigDict

    from lnjax.training.config import Config

    return ConfigDict(Config.from_dict(sections).to_dict()).lock()


def config_flag(default: str):
    """The flag --config, a file with get_config(), and --config.section.field for its fields."""
    from ml_collections import config_flags

    # The fields are looked up when the flag is defined, so that is where a wrong one is found.
    with told_in_a_sentence():
        return config_flags.DEFINE_config_file(
            "config",
            default,
            "File of the configuration; what follows a colon is handed to its get_config.",
            lock_config=True,
        )


@contextlib.contextmanager
def told_in_a_sentence():
    """End the program with the message of what flags and configurations raise, not a traceback."""
    from absl import flags

    try:
        yield
    except flags.Error as error:
        reason = error
        while reason.__context__ is not None:
            reason = reason.__context__
        # ml_collections wraps what get_config raises in a traceback of its own.
        message = reason if "Traceback" in str(error) and type(reason) is ValueError else error
        stop(f"{message}\nPass --help to see the flags.")
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        text = str(error)
        if text[:1] in ("'", '"') and text[:1] == text[-1:]:
            text = ast.literal_eval(text)  # the repr that a KeyError shows in place of its message
        stop(text)


def run(main: Callable[[list[str]], None]) -> None:
    """absl's app.run, with a wrong --config flag told in a sentence rather than a traceback."""
    from absl import app, flags, logging

    def parse(arguments: list[str]) -> list[str]:
        with told_in_a_sentence():
            rest = flags.FLAGS(arguments)
        # Orbax tells of every file it opens; --verbosity=0 brings that back.
        if flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.ERROR)
        return rest

    app.run(main, flags_parser=parse)


def numbers(flag: str, values: list[str]) -> list[float]:
    """The values of a list flag as positive numbers.

    Raises:
      ValueError: one is no positive number.
    """
    result = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not number > 0:
            raise ValueError(f"--{flag} takes positive numbers separated by commas, got {value!r}")
        result.append(number)
    return result


def stop(message: object) -> None:
    """End the program with a message and exit code 2: the command was wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class Progress:
    """A bar on a terminal, a plain line now and then where output is piped.

    Args:
      total: steps (or other units) of everything that is to be done.
      label: what is under way.
    """

    def __init__(self, total: int, label: str, unit: str = "step"):
        self._terminal = sys.stderr.isatty()
        self._bar = None
        self._total, self._label, self._unit, self._next = total, label, unit, 0.0
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit=unit, leave=True)

    def update(self, done: int, text: str = "") -> None:
        """Show that `done` of the steps are done, and a text (loss, tokens/s)."""
        import time

        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.refresh()
        elif time.monotonic() >= self._next or done >= self._total:
            self._next = time.monotonic() + 10.0
            print(f"{self._label}: {self._unit} {done}/{self._total}  {text}".rstrip(), flush=True)

    def line(self, text: str) -> None:
        """Print a line beside the bar."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def provenance(runs: Sequence[Any] = ()) -> dict[str, str]:
    """How results came about: command, date, hardware, commit, versions, corpus.

    Args:
      runs: those that are reported (lnjax.open); what they recorded counts, not where and when
        they are looked at. Without any, this process did the work.
    """
    import jax

    from lnjax.training import records

    module = getattr(sys.modules["__main__"].__spec__, "name", sys.argv[0])
    sittings = [sitting for run in runs for sitting in run.record["sittings"]]
    if not sittings:
        device = jax.devices()[0]
        here = {"platform": device.platform, "kind": device.device_kind, "count": 1}
        sittings = [{"commit": records.commit(), "versions": records.versions(), "devices": here}]
    dates = [run.result["date"] for run in runs if run.result] or [records.now()]
    corpora = [run.record["data"] for run in runs]
    found = {
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "date": max(dates),
        "hardware": _different(_hardware(sitting["devices"]) for sitting in sittings),
        "commit": _different(sitting["commit"] or "not a checkout" for sitting in sittings),
        "versions": _different(
            ", ".join(f"{name} {version}" for name, version in sitting["versions"].items())
            for sitting in sittings
        ),
        "corpus": _different(
            f"{data['source']}, {data['bytes']:,} bytes, SHA-256 {data['sha256'][:12]}"
            for data in corpora
            if "sha256" in data and "bytes" in data
        ),
    }
    return {name: text for name, text in found.items() if text}


def _different(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _hardware(devices: dict[str, Any]) -> str:
    if devices["platform"] == "cpu":
        return f"{processor()}, {usable_cores()} cores"
    return f"{devices['count']} × {devices['kind']}"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
