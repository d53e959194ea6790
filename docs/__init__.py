"""The documentation site: its pages, the writers of the reference, and the hooks of mkdocs."""
