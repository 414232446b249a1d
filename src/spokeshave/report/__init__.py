"""A run's record, and its page."""

from spokeshave.report.page import PAGE_FILE, render_page, write_page
from spokeshave.report.run_record import Outcome, RunRecord

__all__ = ["PAGE_FILE", "Outcome", "RunRecord", "render_page", "write_page"]
