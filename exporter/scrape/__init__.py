"""Families and values become the text of a scrape."""
