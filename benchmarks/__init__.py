"""Contains speed and quality measurements; each script prints a Markdown table."""
