"""The error codes, as part of the catalog; they stand apart so that running needs no catalog."""

from ortolan.error_codes import DESCRIPTIONS, Code

__all__ = ["DESCRIPTIONS", "Code"]
