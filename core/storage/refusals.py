"""What object stores answer when they refuse, in one line with the fix.

Their own texts, which may hold secrets, stay out.
"""

import re

from core.storage.store import MissingError, StoreError

_CODE = re.compile(r"<Code>(\w{1,60})</Code>|\"(?:code|reason)\":\s*\"(\w{1,60})\"|\(code: ([A-Za-z]{1,60})\)")
_STATUS = re.compile(r"(?:status code: |\(code: )(\d{3})")
"""The code in brackets is obstore's, of one object of many that were to be deleted."""
_UNREADABLE = re.compile(r"Invalid Access Key|service account file")
_NO_CREDENTIALS = re.compile(r"169\.254\.(169\.254|170\.2)|metadata\.google\.internal|credential", re.IGNORECASE)
_BUCKET = ("there is no such bucket", "check the name, the region and the endpoint")
_DENIED = ("access is denied", "grant these credentials reading here, and writing where something is written")
_WRONG = ("the credentials are not valid here", "set the right ones by environment, profile or role")
_EXPIRED = ("the credentials have expired", "get new ones and run the same command to resume")
_CLOCK = ("this machine's clock is wrong", "set it, since requests are signed with the time")
_REGION = ("the bucket is in another region", "set AWS_REGION to the bucket's")
_BUSY = ("the storage asks for fewer requests", "run the same command to resume")
_NONE = (
    "no credentials were found",
    "set them by environment, profile or role; AWS_SKIP_SIGNATURE=true if it is public",
)

BY_CODE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("NoSuchBucket", "ContainerNotFound", "InvalidBucketName"), _BUCKET),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AuthorizationFailure", "forbidden", "Forbidden"), _DENIED),
    **dict.fromkeys(("AuthorizationPermissionMismatch", "AccountProblem", "PublicAccessNotPermitted"), _DENIED),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "authError"), _WRONG),
    **dict.fromkeys(("InvalidToken", "UnrecognizedClientException", "InvalidAuthenticationInfo"), _WRONG),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"), _EXPIRED),
    "RequestTimeTooSkewed": _CLOCK,
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"), _REGION),
    **dict.fromkeys(("IllegalLocationConstraintException", "WrongRegion"), _REGION),
    **dict.fromkeys(("SlowDown", "ServerBusy", "TooManyRequests", "rateLimitExceeded"), _BUSY),
}
"""By the code in the answer of S3, Azure and GCS: what is wrong, and the fix."""
BY_STATUS: dict[int, tuple[str, str]] = {
    301: _REGION, 307: _REGION, 400: ("the request is refused", "check the name, the region and the endpoint"),
    401: _WRONG, 403: _DENIED, 404: ("there is nothing of this name", "check it"), 429: _BUSY, 503: _BUSY,
}  # fmt: skip
"""Where an answer holds no code, as that to HEAD."""
_NEVER = frozenset(("InvalidPathError", "NotSupportedError", "UnknownConfigurationKeyError", "ValueError"))
TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))


def refusal(where: str, error: Exception) -> StoreError:
    """Return what a store refused.

    Args:
        where: URL of the object or bucket, without secrets.
        error: what obstore raised.
    """
    text = str(error)
    code = _CODE.search(text)
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    named = BY_CODE.get(code[code.lastindex or 0] if code else "")
    is_transient = status in TRANSIENT or named is _BUSY
    if isinstance(error, FileNotFoundError) and named is None:
        return MissingError(f"{where}: no such object")
    if named is None and status is not None:
        named = BY_STATUS.get(status, (f"the storage fails (HTTP {status})", "run the same command to resume"))
    if named is None and _UNREADABLE.search(text):
        named = _WRONG
    if named is None and _NO_CREDENTIALS.search(text):
        named = _NONE
    if named is None and "Range request not supported" in text:
        named = ("the server gives no parts of files", "fetch the file into a local folder, and name that")
    if named is None and type(error).__name__ in _NEVER:
        named = ("no object can have this name, or a setting is wrong", "rename it, or correct the environment")
    if named is None:
        named = ("the storage cannot be reached", "check the network, the name and the endpoint")
        is_transient = True
    return StoreError(f"{where}: {named[0]}; {named[1]}", is_transient=is_transient)
