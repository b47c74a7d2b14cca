"""``https://``: one file, or a folder with a file SHA256SUMS that lists its files.

Web servers have no common way to list a folder. It is common to publish a set of files with a list of their digests, made
with ``sha256sum * > SHA256SUMS``. An address that ends in a slash or in SHA256SUMS is such a folder; any other is a file.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import SplitResult, quote, unquote, urlsplit

from phasebus import __version__
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.names import remote_parts
from phasebus.initializer.downloads.protocol import Listing, RemoteFile, Source
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.bodies import HttpBody
from phasebus.initializer.downloads.sources.headers import basic_credentials
from phasebus.initializer.downloads.sources.http import HttpClient, StatusError, error_of_status

SUMS = "SHA256SUMS"
_LINE = re.compile(r"(?P<digest>[0-9A-Fa-f]{64}) [ *](?:\./)?(?P<name>.+)")
_MAX_SUMS = 16 * 2**20
_HUB_PAGE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+?)(?:/tree/(?P<revision>[\w./%-]+?))?/?")
_HUB_HOSTS = frozenset({"huggingface.co", "hf.co"})


def web_source(model: str, settings: DownloadSettings) -> Source:
    """Return the source of a web address; for the page of a repository on the hub, a `HubSource`."""
    try:
        model.encode()  # an argument of the command line may have bytes that are not UTF-8
        parts = urlsplit(model)
        _ = parts.port
    except ValueError:
        raise DownloadError(
            f"the {model.partition(':')[0]}:// address is malformed: its host, its port or a character cannot be read; write '/', '#', '?' "
            "and '@' in a password as %2F, %23, %3F and %40"
        ) from None
    page = _HUB_PAGE.fullmatch(parts.path)
    if parts.hostname in _HUB_HOSTS and page is not None and not parts.query:
        from phasebus.initializer.downloads.sources.hub import HubSource

        return HubSource(page["repo"], unquote(page["revision"]) if page["revision"] else None, settings)
    return WebSource(parts, settings)


class WebSource:
    """A file, or a folder of files, on a web server.

    Args:
        address: The address. A user and password in it become an Authorization header.
        settings: The limits.
    """

    kind = "https"

    def __init__(self, address: SplitResult, settings: DownloadSettings) -> None:
        if not address.hostname:
            raise DownloadError(f"{address.scheme}:// is followed by no host; write https://host/path")
        self._settings = settings
        self._client = HttpClient(settings)
        self._headers = {"User-Agent": f"phasebus/{__version__}", **basic_credentials(address)}
        netloc = address.netloc.rpartition("@")[2]
        self._query = f"?{address.query}" if address.query else ""
        path = address.path or "/"
        self._is_folder = path.endswith(("/", f"/{SUMS}"))
        self._base = f"{address.scheme}://{netloc}{path.rpartition('/')[0]}/"
        self._quoted = path.rpartition("/")[2]
        self._name = unquote(self._quoted).rpartition("/")[2]
        self.display = self._base if self._is_folder else f"{address.scheme}://{netloc}{path}"

    def listing(self) -> Listing:
        """Return the files that SHA256SUMS lists, with their sizes from the server; or the single file."""
        if not self._is_folder:
            size, validator = self._client.size(self._file_url(), self._headers)
            return Listing(files=(RemoteFile(name=self._name, size=size, validator=validator),), single=True)
        digests = self._digests()
        with ThreadPoolExecutor(self._settings.concurrency) as threads:
            return Listing(files=tuple(threads.map(self._describe, digests, digests.values())))

    def open(self, file: RemoteFile, start: int, validator: str | None) -> HttpBody:
        """Request a file from the server."""
        url = self._url(file.name) if self._is_folder else self._file_url()
        return self._client.open(url, self._headers, start, validator)

    def close(self) -> None:
        """Abort running requests and close the connections."""
        self._client.close()

    def _file_url(self) -> str:
        """Return the address of the file, quoted as it was: with %2F in place of a slash, it is another address."""
        return f"{self._base}{self._quoted}{self._query}"

    def _url(self, name: str) -> str:
        return f"{self._base}{quote(name)}{self._query}"

    def _describe(self, name: str, digest: str) -> RemoteFile:
        size, validator = self._client.size(self._url(name), self._headers)
        return RemoteFile(name=name, size=size, digest=Digest("sha256", digest), validator=validator)

    def _digests(self) -> dict[str, str]:
        """Return the names in SHA256SUMS and their digests."""
        try:
            content = self._client.read(self._url(SUMS), self._headers, _MAX_SUMS)
        except StatusError as status:
            error = error_of_status(status)
            if not isinstance(error, DownloadError):
                raise error from None
            raise DownloadError(
                f"{self._base} has no list of its files: {error}. Put a file {SUMS} there (`sha256sum * > {SUMS}`), or give "
                "the address of one file"
            ) from None
        return read_digests(content, f"{self._base}{SUMS}")


def read_digests(content: bytes, display: str) -> dict[str, str]:
    """Return the names and the digests in the content of a SHA256SUMS file.

    Raises:
        DownloadError: It is not in the format of ``sha256sum``, or a name leads out of the folder.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise DownloadError(f"{display} is not UTF-8") from None
    digests = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if (matched := _LINE.fullmatch(line)) is None:
            raise DownloadError(f"line {number} of {display} is not in the format of `sha256sum`")
        remote_parts(matched["name"], "a file")
        digests[matched["name"]] = matched["digest"].lower()
    return digests
