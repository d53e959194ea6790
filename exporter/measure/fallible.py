"""The errors of a request: those that the application handles, signals, or lets pass."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from exporter.measure.outcomes import Outcomes
from exporter.observation import Observation


class Fallible(Observation):
    """An observation that notes the application's errors."""

    outcomes: Outcomes
    pending_error: BaseException | None = None
    """The exception for which Flask looks for a handler; without a handler Flask reports it again."""

    def note_exception(self, error: BaseException) -> None:
        """Note an exception that the application does not handle; it may still answer with an error page."""
        if self.recorded or (self.exception is not None and not self.reported):
            return
        self.reported = False
        self.exception = error
        self.classify(error)
        self.pending_error = None
        self.forget()
        if not self.code:
            self.code = "500"
            self.outcomes.resolve(self, self.environ)

    def report(self, error: BaseException) -> None:
        """Note an error that the application signals, and may answer itself."""
        if self.recorded or self.exception is not None:
            return
        self.reported = True
        self.exception = error
        self.classify(error, is_answer=isinstance(error, HTTPException))
        self.forget()

    def classify(self, error: BaseException, *, is_answer: bool = False) -> None:
        """Note the type and the fingerprint of an error, while its traceback is complete.

        An HTTP error that `is_answer` has no fingerprint, because it is no fault of the code.
        """
        if error is self.pending_error and self.fingerprint is not None:
            return
        self.error_type = type(error).__name__
        self.fingerprint = None
        if self.outcomes.fingerprints is not None and not is_answer:
            try:
                self.outcomes.fingerprints.note(self, error)
            except Exception as failure:
                self.outcomes.failures.count("error_groups", failure)

    def forget(self) -> None:
        """Forget the outcome, which does not hold for an exchange with an error."""
        if self.outcome is not None:
            self.code, self.matched, self.outcome = self.outcome.code, self.outcome.matched, None
