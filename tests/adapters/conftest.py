"""The small backbone, and the check that whatever borrows it gives it back."""

from tests.e4t.conftest import backbone, backbone_untouched

__all__ = ["backbone", "backbone_untouched"]
