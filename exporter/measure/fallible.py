"""What may go wrong with a request: errors that the application handles, signals, or lets pass."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from exporter.measure.outcomes import Outcomes
from exporter.observation import Observation


class Fallible(Observation):
    """An observation that is told of the application's errors while they happen."""

    outcomes: Outcomes
    unanswered: BaseException | None = None
    """The exception for which Flask looks for a handler: if there is none, it comes a second time."""

    def raised(self, error: BaseException) -> None:
        """The application raised what it does not handle; it may still answer with an error page."""
        if self.recorded or (self.exception is not None and not self.reported):
            return
        self.reported = False
        self.exception = error
        self.classify(error)
        self.unanswered = None
        self.forget()
        if not self.code:
            self.code = "500"
            self.outcomes.resolve(self, self.environ)

    def report(self, error: BaseException) -> None:
        """The application signals an error that it may answer itself."""
        if self.recorded or self.exception is not None:
            return
        self.reported = True
        self.exception = error
        self.classify(error, answered=isinstance(error, HTTPException))
        self.forget()

    def classify(self, error: BaseException, *, answered: bool = False) -> None:
        """Note what kind of error this is, while its traceback is whole.

        An HTTP error that is to be `answered` belongs to no group: it is no fault of the code.
        """
        if error is self.unanswered and self.fingerprint is not None:
            return
        self.error_type = type(error).__name__
        self.fingerprint = None
        if self.outcomes.fingerprints is not None and not answered:
            try:
                self.outcomes.fingerprints.note(self, error)
            except Exception as failure:
                self.outcomes.failures.count("error_groups", failure)

    def forget(self) -> None:
        """Something went wrong: what is known of its outcome does not hold for this exchange."""
        if self.outcome is not None:
            self.code, self.matched, self.outcome = self.outcome.code, self.outcome.matched, None
