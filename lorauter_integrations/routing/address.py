"""The address of a Chroma server. Knows text only."""

from __future__ import annotations

from urllib.parse import urlsplit

from lorauter_integrations.errors import ConfigError


def parse_address(url: str) -> tuple[str, int, bool]:
    """Host, port and whether it is https.

    Raises:
        ConfigError: not http://HOST[:PORT] or https://HOST[:PORT].
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.path.strip("/"):
        raise ConfigError(f"{url!r} is not the address of a Chroma server", hint="write http://HOST:PORT")
    secure = parts.scheme == "https"
    return parts.hostname, port or (443 if secure else 8000), secure
