"""The display of a run: a bar on a terminal, plain lines where output is piped."""

import io
import sys

import pytest

from experiments.command_line import Progress


class Terminal(io.StringIO):
    """What says that it is a terminal, and keeps what it is told."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = Progress(10, "pre_ln")
    bar.update(5, "loss 1.25  300 tokens/s")
    bar.line("a line beside it")
    bar.update(10, "loss 1.00")
    bar.close()
    text = screen.getvalue()
    for expected in ("pre_ln", "5/10", "loss 1.25  300 tokens/s", "10/10", "\r"):
        assert expected in text
    assert "<" in text and "?" in text  # the time that is left
    assert "a line beside it" in text + capsys.readouterr().out


def test_plain_lines_in_a_pipe_now_and_then_and_at_the_end(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    bar = Progress(4, "pre_ln")
    for done, seconds in ((1, 0.0), (2, 3.0), (3, 11.0), (4, 1.0)):
        clock[0] += seconds
        bar.update(done, f"loss {done}")
    bar.line("done")
    bar.close()
    out, error = capsys.readouterr()
    assert out.splitlines() == [
        "pre_ln: step 1/4  loss 1",
        "pre_ln: step 3/4  loss 3",
        "pre_ln: step 4/4  loss 4",
        "done",
    ]
    assert not error


@pytest.mark.parametrize("terminal", [True, False])
def test_a_display_without_steps_can_be_closed(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    Progress(3, "nothing").close()
