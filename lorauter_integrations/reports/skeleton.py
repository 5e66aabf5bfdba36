"""What every page is made of: one HTML file that needs no server and no network. Knows texts only."""

from __future__ import annotations

from importlib.resources import files


def own_file(name: str) -> str:
    """The text of a file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def html_page(title: str, style: str, inside: str) -> str:
    """The page; its tables of class `sortable` are sorted by a click on a column's name.

    Args:
        title: escaped already, as is `inside`.
        style: CSS beside that which all pages share.
        inside: of `main`, below the title.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{own_file("page.css")}{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{inside}
</main>
<script>
{own_file("page.js")}</script>
</body>
</html>
"""
