"""The guide: the Markdown files of web/guide, as pages."""
