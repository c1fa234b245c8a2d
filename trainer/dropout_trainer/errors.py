"""Errors that a user can do something about; everything else is a bug and keeps its traceback."""

from dropout_api.names import ExitCode


class StageFailure(Exception):  # noqa: N818 - it is how a stage ends, told in the report
    """A stage cannot go on: a CamelCase reason for machines, one line with the remedy for people, an exit code by kind."""

    def __init__(self, reason: str, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.exit_code = exit_code


class ToldFailure(StageFailure):
    """One whose line a child process has said already."""
