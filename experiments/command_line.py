"""What the experiment scripts share: flags into configurations, progress, where things were run."""

import datetime
import os
import platform
import sys
from collections.abc import Callable
from typing import Any


def configuration(**sections: dict[str, Any]):
    """A locked ConfigDict with every field of a run's configuration; `sections` replace defaults.

    A field that does not exist raises at once, and names the one that was probably meant.
    """
    from ml_collections import ConfigDict

    from lnjax.training.config import Config

    return ConfigDict(Config.from_dict(sections).to_dict()).lock()


def run(main: Callable[[list[str]], None]) -> None:
    """absl's app.run, with a wrong --config flag told in a sentence rather than a traceback."""
    from absl import app, flags

    def parse(arguments: list[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            stop(f"{error}\nPass --help to see the flags.")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # What ml_collections raises for --config.field=value; quotes and \\n come escaped.
            stop(str(error).strip("'\"").replace("\\n", "\n").replace("\\'", "'"))

    # Orbax tells of every file it opens; --verbosity=0 brings that back.
    flags.FLAGS.set_default("verbosity", -2)
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
      total: steps of everything that is to be done.
      label: what is under way.
    """

    def __init__(self, total: int, label: str, done: int = 0):
        self._terminal = sys.stderr.isatty()
        self._bar = None
        self._total, self._label, self._next = total, label, 0.0
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, unit="step", leave=True)

    def update(self, done: int, text: str) -> None:
        """Show that `done` of the steps are done, and a text (loss, tokens/s)."""
        import time

        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.refresh()
        elif time.monotonic() >= self._next or done >= self._total:
            self._next = time.monotonic() + 10.0
            print(f"{self._label}: step {done}/{self._total}  {text}", flush=True)

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


def provenance(corpus: str = "") -> dict[str, Any]:
    """How results came about: command, date, hardware, commit, versions."""
    from lnjax.training import records

    module = getattr(sys.modules["__main__"].__spec__, "name", sys.argv[0])
    found = {
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "hardware": f"{processor()}, {usable_cores()} cores",
        "commit": records.commit() or "not a checkout",
        "versions": ", ".join(f"{k} {v}" for k, v in records.versions().items()),
    }
    return found | ({"corpus": corpus} if corpus else {})


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
