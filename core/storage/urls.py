"""URLs of buckets: which there are, and their parts."""

from dataclasses import dataclass
from urllib.parse import unquote

from core.storage.store import StoreError

WEB_SCHEMES = ("https", "http")
SCHEMES = ("s3", "gs", "az", *WEB_SCHEMES)


@dataclass(frozen=True)
class Place:
    """What a URL names.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: of Azure the container (the account is AZURE_STORAGE_ACCOUNT_NAME); of HTTP the host.
        key: what follows, without slashes around it; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str

    @property
    def root(self) -> str:
        """The bucket's own URL."""
        return f"{self.scheme}://{self.bucket}"

    @property
    def is_web(self) -> bool:
        """Return whether it is on a web server, which neither lists nor writes."""
        return self.scheme in WEB_SCHEMES


def is_url(text: str) -> bool:
    """Return whether a text is a URL that a store can be opened for, by its scheme."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def place_of(url: str) -> Place:
    """Return the parts of a URL; those of HTTP are unescaped.

    Raises:
        StoreError: another scheme, no bucket, credentials in it, or a query (which tables would keep).
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in SCHEMES:
        raise StoreError(f"{scheme}://…: not a storage that is known; use one of {', '.join(SCHEMES)}")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise StoreError(f"{scheme}://: no bucket is named; write {scheme}://BUCKET/folder")
    if "@" in bucket:
        raise StoreError(f"{scheme}://…: holds a user or password; give credentials by environment, profile or role")
    if scheme in WEB_SCHEMES and ("?" in key or "#" in key):
        raise StoreError(
            f"{scheme}://{bucket}/…: a URL with '?' or '#' may hold a signature, which the table would keep; "
            "give a plain URL, or s3://, gs://, az:// with credentials"
        )
    return Place(scheme, bucket, unquote(key) if scheme in WEB_SCHEMES else key)
