"""Runs for people. A mapping: one HTML page; its picture is `reports.heat_map`, which needs the extra `plots`.

An evaluation: its values as JSON, a Markdown text and one HTML page with plots.
"""

from lorauter_integrations.reports.evaluation_files import write_evaluation, write_evaluation_page
from lorauter_integrations.reports.evaluation_markdown import evaluation_markdown
from lorauter_integrations.reports.evaluation_page import evaluation_page
from lorauter_integrations.reports.page import mapping_page, write_page

__all__ = [
    "evaluation_markdown",
    "evaluation_page",
    "mapping_page",
    "write_evaluation",
    "write_evaluation_page",
    "write_page",
]
