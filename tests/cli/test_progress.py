"""Progress: a plain line now and then without a terminal, nothing under --json, one bar on a terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest
from embedcache_cli import output
from embedcache_cli.output import ProgressLine

BAR = """
from embedcache_cli.output import ProgressLine, tell
with ProgressLine("extracting", quiet=False) as line:
    for done in range(1, 41):
        line.update(done, 40, "decode binds")
        if done == 20:
            tell("a notice")
"""


def test_without_a_terminal_a_plain_line_at_most_each_30_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    with ProgressLine("extracting", quiet=False) as line:
        for done in range(0, 1000, 10):
            now += 1.0
            line.update(done, 1000, "decode binds")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "extracting: 290 of 1,000, 9.67 a second, 1 min 13 s left, decode binds",
        "extracting: 590 of 1,000, 9.83 a second, 42 s left, decode binds",
        "extracting: 890 of 1,000, 9.89 a second, 11 s left, decode binds",
    ]


def test_nothing_is_said_under_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.0)
    with ProgressLine("extracting", quiet=True) as line:
        line.update(5, 10, "decode binds")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_one_bar_and_notices_stay_whole_lines() -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=follower, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "100"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out == b""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "40 of 40" in text
    assert "decode binds" in text
    assert "a notice" in [line.strip() for line in re.split(r"[\r\n]+", text)]
