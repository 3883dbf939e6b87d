"""One JSON object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from ciar.cloud_server.logs import JsonFormatter, configure_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(level)


def record(message: str = "opened", **extra: object) -> logging.LogRecord:
    return logging.getLogger("ciar.cloud_server.service").makeRecord(
        "ciar.cloud_server.service", logging.INFO, "file", 1, message, (), None, extra=extra
    )


def test_a_record_is_one_line_of_json() -> None:
    line = JsonFormatter().format(record("two\nlines", session="abc", slot=3, path=object))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["event"] == "two\nlines"
    assert (fields["level"], fields["logger"]) == ("info", "ciar.cloud_server.service")
    assert (fields["session"], fields["slot"]) == ("abc", 3)
    assert fields["path"] == str(object)
    assert datetime.fromisoformat(fields["time"]).utcoffset() is not None
    assert set(fields) == {"time", "level", "logger", "event", "session", "slot", "path"}


def test_an_exception_is_inside_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        broken = record()
        broken.exc_info = sys.exc_info()
    line = JsonFormatter().format(broken)
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_json_goes_to_standard_error(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logging.getLogger("x").debug("not this")
    logging.getLogger("x").warning("number %d", 7, extra={"session": "s"})
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert json.loads(line)["event"] == "number 7"
    assert json.loads(line)["session"] == "s"


def test_console_is_for_people(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug", "console")
    logging.getLogger("x").debug("plain words")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("DEBUG   x: plain words")
