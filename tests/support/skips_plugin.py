"""Pytest plugin: prints every skipped test and fails the session on a skip that is not allowed.

Load it with `-p tests.support.skips_plugin`. Allowed skips stand in tests/allowed_skips.txt, one a line:
a pattern of test ids (as fnmatch has them), two spaces, and a part of the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ALLOWED = Path(__file__).resolve().parent.parent / "allowed_skips.txt"


def allowances(text: str) -> list[tuple[str, str]]:
    """(pattern, reason) per line; blank lines and those that begin with # do not count.

    >>> allowances("# why\\n\\ntests/test_a.py::*  no GPU\\n")
    [('tests/test_a.py::*', 'no GPU')]
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split("  ", 1) for line in lines]
    wrong = [line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2 or not pair[1].strip()]
    if wrong:
        raise ValueError(f"{ALLOWED.name}: expected a pattern, two spaces and a reason, found {wrong[0]!r}")
    return [(pair[0].strip(), pair[1].strip()) for pair in pairs]


def refused(skips: dict[str, str], allowed: list[tuple[str, str]]) -> list[str]:
    """Ids of the skipped tests (id -> reason) that no line allows, sorted.

    >>> refused({"t::a": "no GPU here", "t::b": "lazy"}, [("t::*", "no GPU")])
    ['t::b']
    """
    return sorted(
        name
        for name, reason in skips.items()
        if not any(fnmatchcase(name, pattern) and words in reason for pattern, words in allowed)
    )


@dataclass(eq=False)  # pytest keeps plugins in sets
class Skips:
    """Collects the skips of a session."""

    seen: dict[str, str] = field(default_factory=dict)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            where = report.longrepr
            self.seen[report.nodeid] = where[2] if isinstance(where, tuple) else str(where)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        bad = set(refused(self.seen, allowances(ALLOWED.read_text())))
        for name, reason in sorted(self.seen.items()):
            word = "NOT ALLOWED" if name in bad else "allowed"
            terminalreporter.write_line(f"skip ({word}): {name}: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        on_worker = hasattr(session.config, "workerinput")
        if not on_worker and session.exitstatus == 0 and refused(self.seen, allowances(ALLOWED.read_text())):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips(), "slidebatch-skips")
