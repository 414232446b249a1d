"""The exceptions of Spokeshave: every error a user can meet derives from `SpokeshaveError`.

A message says what was expected, what came, where (layer, file, step) and what to do about it.
No other file of the package defines an exception.
"""


class SpokeshaveError(Exception):
    """Base of every error that Spokeshave raises on purpose."""


class InvalidArgument(SpokeshaveError, ValueError):
    """An argument is outside its documented range."""


class DataError(SpokeshaveError):
    """A data set is missing, truncated, tampered with or of an unexpected form."""


class FileError(SpokeshaveError, OSError):
    """A file could not be read or written (full disk, no permission, wrong path)."""


class CheckpointError(SpokeshaveError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class TrainingDiverged(SpokeshaveError):
    """The loss or a weight became NaN or infinite."""


class UnsupportedLayer(SpokeshaveError):
    """A layer or operation is outside what the called function can handle."""


class RewriteError(SpokeshaveError):
    """A rewrite of a model could not be carried out."""


class NothingChanged(RewriteError):
    """A rewrite found nothing to change; the message names the likely causes."""


class InexactRewrite(RewriteError):
    """A rewrite that promises exactness did not reproduce the original on random probes."""


class MissingExtra(SpokeshaveError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class LedgerError(SpokeshaveError):
    """A result cannot be recorded, because what it would be traced by is missing."""


class JitRefused(SpokeshaveError):
    """The system does not let this process run code that it generated."""


class ExchangeFailed(SpokeshaveError):
    """Workers could not exchange gradients: one of them ended, hung, or took another turn than the others."""


class WorkerFailed(SpokeshaveError):
    """A process that did a part of the work raised, was killed, or could not start."""
