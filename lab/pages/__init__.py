"""The report page and the comparison page."""
