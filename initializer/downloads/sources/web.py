"""``https://``: one file, or a folder that says in a file SHA256SUMS what is in it.

Web servers have no common way to list a folder, but there is an old custom for publishing several files that belong
together: ``sha256sum * > SHA256SUMS`` beside them. An address that ends in a slash, or in that name, is such a folder;
any other is a file.
"""

from __future__ import annotations

import re
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import SplitResult, quote, unquote, urlsplit

from phasebus import __version__
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import default_folder
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.http import HttpBody, HttpClient
from phasebus.initializer.downloads.sources.protocol import Listing, RemoteFile, Source

SUMS = "SHA256SUMS"
_LINE = re.compile(r"(?P<digest>[0-9A-Fa-f]{64}) [ *](?:\./)?(?P<name>.+)")
_LONGEST_SUMS = 16 * 2**20
_HUB_PAGE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+?)(?:/tree/(?P<revision>[\w./%-]+?))?/?")
_HUB_HOSTS = frozenset({"huggingface.co", "hf.co"})


def web_source(model: str, settings: DownloadSettings) -> Source:
    """Return the source of a web address: the hub's for the page of one of its repositories."""
    parts = urlsplit(model)
    page = _HUB_PAGE.fullmatch(parts.path)
    if parts.hostname in _HUB_HOSTS and page is not None and not parts.query:
        from phasebus.initializer.downloads.sources.hub import HubSource

        return HubSource(page["repo"], unquote(page["revision"]) if page["revision"] else None, settings)
    return WebSource(model, settings)


class WebSource:
    """A file, or a folder of files, on a web server.

    Args:
        url: The address. A user and password in it become an Authorization header.
        settings: How to fetch.
    """

    kind: str = "https"

    def __init__(self, url: str, settings: DownloadSettings) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise DownloadError(f"{parts.scheme}:// is followed by no host; write https://host/path")
        self._settings = settings
        self._client = HttpClient(settings)
        self._headers = {"User-Agent": f"phasebus/{__version__}", **_credentials(parts)}
        netloc = parts.netloc.rpartition("@")[2]
        self._query = f"?{parts.query}" if parts.query else ""
        path = parts.path or "/"
        self._folder = path.endswith(("/", f"/{SUMS}"))
        self._base = f"{parts.scheme}://{netloc}{path.rpartition('/')[0]}/"
        self._name = unquote(path.rpartition("/")[2])
        self.display = self._base if self._folder else f"{parts.scheme}://{netloc}{path}"

    def listing(self) -> Listing:
        """Return the files SHA256SUMS names, with the sizes the server tells; or the one file."""
        if not self._folder:
            size, validator = self._client.size(self._url(self._name), self._headers)
            file = RemoteFile(name=self._name, size=size, validator=validator)
            return Listing(files=(file,), folder=default_folder(self.kind, self.display), single=True)
        digests = self._digests()
        with ThreadPoolExecutor(self._settings.concurrency) as threads:
            files = threads.map(self._described, digests, digests.values())
            return Listing(files=tuple(files), folder=default_folder(self.kind, self.display))

    def open(self, file: RemoteFile, start: int, validator: str | None) -> HttpBody:
        """Ask the server for a file."""
        return self._client.open(self._url(file.name), self._headers, start, validator)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _url(self, name: str) -> str:
        return f"{self._base}{quote(name)}{self._query}"

    def _described(self, name: str, digest: str) -> RemoteFile:
        size, validator = self._client.size(self._url(name), self._headers)
        return RemoteFile(name=name, size=size, digest=Digest("sha256", digest), validator=validator)

    def _digests(self) -> dict[str, str]:
        """Return the names in SHA256SUMS and their digests."""
        try:
            content = self._client.read(self._url(SUMS), self._headers, _LONGEST_SUMS).decode()
        except DownloadError as error:
            raise DownloadError(
                f"{self._base} does not say what is in it: {error}. Put a file {SUMS} there (`sha256sum * > {SUMS}`), or "
                "give the address of one file"
            ) from error
        except UnicodeDecodeError:
            raise DownloadError(f"{self._base}{SUMS} is not UTF-8") from None
        digests = {}
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            if (matched := _LINE.fullmatch(line)) is None:
                raise DownloadError(f"line {number} of {self._base}{SUMS} is none that `sha256sum` writes")
            digests[matched["name"]] = matched["digest"].lower()
        return digests


def _credentials(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    plain = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {b64encode(plain.encode()).decode()}"}
