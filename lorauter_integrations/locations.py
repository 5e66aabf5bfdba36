"""Where weights lie: a hub name, a folder or file, or files shipped inside an installed package.

Knows the file system only; nothing is downloaded here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lorauter_integrations.errors import ConfigError

PACKAGE = "package:"


def resolve_location(location: str, *, relative_to: Path | None = None) -> str:
    """Turn a location of the settings into what a loader takes.

    `package:NAME` or `package:NAME/inner/path` is a folder or file of an installed Python package (the
    package is not imported); a path that exists is made absolute; anything else is left as it is,
    to be a hub name.

    Args:
        location: what the user wrote.
        relative_to: the folder that relative paths are read from; the working folder when None.

    Raises:
        ConfigError: the package is not installed, or has no such file.
    """
    if location.startswith(PACKAGE):
        return str(_in_package(location.removeprefix(PACKAGE)))
    path = Path(location).expanduser()
    path = path if path.is_absolute() else (relative_to or Path.cwd()) / path
    if path.exists():
        return str(path.resolve())
    if location.startswith((".", "/", "~")):
        raise ConfigError(f"{location!r} does not exist (looked at {path})")
    return location


def _in_package(inner: str) -> Path:
    name, _, rest = inner.partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the Python package {name!r} is not installed", hint=f"pip install {name.replace('_', '-')}"
        )
    path = Path(spec.submodule_search_locations[0]) / rest
    if not path.exists():
        raise ConfigError(f"the Python package {name!r} has no file {rest!r}")
    return path
