"""What becomes of a Ctrl-C that comes while the user is being asked about one."""

import io

from jobmon.client import interrupts


class ImpatientTerminal(io.StringIO):
    """Ctrl-C is pressed as soon as it reads that the run goes on."""

    def __init__(self):
        super().__init__()
        self.presses = 1

    def write(self, text):
        super().write(text)
        if text == "Going on.\n" and self.presses:
            self.presses -= 1
            raise KeyboardInterrupt


def test_ctrl_c_right_after_a_no_is_asked_about_anew(monkeypatch):
    terminal = ImpatientTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\nn\n"))
    assert interrupts.ask_on_terminal() is False
    assert terminal.getvalue().count("[y/N]") == 2
