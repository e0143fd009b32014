"""AWS's profile files, which obstore does not read by itself; environment, token files and roles it does."""

import configparser
import json
import os
from collections.abc import Mapping
from pathlib import Path

from core.storage.store import StoreError

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
_OTHER_CHAINS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")


def profile(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what an AWS profile says, as obstore calls it; nothing where the environment holds keys or there is none.

    Args:
        environment: AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE are looked at.

    Raises:
        StoreError: AWS_PROFILE names a profile that is not there, or a file cannot be read.
    """
    name = environment.get("AWS_PROFILE") or "default"
    home = Path(environment.get("HOME") or Path.home())
    files = {
        Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config"): f"profile {name}",
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials"): name,
    }
    found: dict[str, str] = {}
    is_there = False
    for file, section in files.items():
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):  # its text may hold secrets
            raise StoreError(f"{file}: not a readable file of AWS profiles; correct it") from None
        for title in {section, name if name == "default" else section}:
            if parser.has_section(title):
                is_there = True
                found |= {ours: value for key, ours in _KEYS.items() if (value := parser.get(title, key, fallback=""))}
    if "AWS_PROFILE" in environment and not is_there:
        raise StoreError(f"AWS_PROFILE={name}: no such profile; name one of {' or '.join(map(str, files))}")
    if any(name in environment for name in _OTHER_CHAINS):
        found = {key: value for key, value in found.items() if key in ("region", "endpoint")}
    has_region = "AWS_REGION" in environment or "AWS_DEFAULT_REGION" in environment
    if has_region:
        found.pop("region", None)
    if "AWS_ENDPOINT_URL" in environment or "AWS_ENDPOINT" in environment:
        found.pop("endpoint", None)
    return found


def google_endpoint(environment: Mapping[str, str]) -> str:
    """Return which server is to be used for GCS where it is not Google's: nothing where it is, or cannot be told."""
    if given := environment.get("GOOGLE_BASE_URL"):
        return given
    account = environment.get("GOOGLE_SERVICE_ACCOUNT_KEY", "")
    file = environment.get("GOOGLE_SERVICE_ACCOUNT") or environment.get("GOOGLE_SERVICE_ACCOUNT_PATH")
    try:
        found = json.loads(account or (Path(file).read_text(encoding="utf-8") if file else "{}"))
    except (OSError, ValueError):  # which obstore tells of
        return ""
    return str(found.get("gcs_base_url", "")) if isinstance(found, dict) else ""
