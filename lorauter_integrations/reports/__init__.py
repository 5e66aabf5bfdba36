"""A mapping run for people: one HTML page. The picture is `reports.heat_map`, which needs the extra `plots`."""

from lorauter_integrations.reports.page import mapping_page, write_page

__all__ = ["mapping_page", "write_page"]
