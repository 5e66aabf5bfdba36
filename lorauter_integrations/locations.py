"""What names of the settings stand for: weights (a hub name, a folder, files of a package), and functions.

Knows the file system and installed packages only; nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorauter_integrations.errors import ConfigError, LoRAuterError

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


def imported_function(name: str, what: str, error_type: type[LoRAuterError], *, hint: str = "") -> Callable[..., Any]:
    """The function of a name such as `package.module:function`, imported.

    Args:
        name: where it is.
        what: what it is for, in the errors' words.
        error_type: of the errors.
        hint: for one that cannot be imported.

    Raises:
        LoRAuterError: of that type: it cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise error_type(f"{what} {name!r} cannot be imported: {error}", hint=hint) from error
    if not callable(found):
        raise error_type(f"{what} {name!r} is not a function")
    return found  # type: ignore[no-any-return]
