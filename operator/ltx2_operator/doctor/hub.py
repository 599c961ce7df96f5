"""Whether models can be downloaded: the Hub's address, the token, and the gated Gemma for runs that name it."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ltx2_job.places import is_offline
from ltx2_operator.doctor.finding import ANSWER_SECONDS, AREA_SECONDS, Finding, within

ENDPOINT: Final = "https://huggingface.co"
MODEL: Final = "Lightricks/LTX-2"
GATED: Final = "google/gemma-3-12b-it"
LOCAL: Final = "models that lie in the workspace already can be used without it"


def ask_hub(environ: Mapping[str, str]) -> list[Finding]:
    """Ask the Hub that HF_ENDPOINT names. Never prints the token."""
    endpoint = environ.get("HF_ENDPOINT") or ENDPOINT
    if not is_address(endpoint):
        return [Finding("hub", "fix", f"HF_ENDPOINT: {endpoint!r} is no address", f"write {ENDPOINT}, or unset it")]
    if is_offline(environ):
        return [Finding("hub", "note", "HF_HUB_OFFLINE forbids downloads", LOCAL)]
    return within(AREA_SECONDS, "hub", lambda: _ask(endpoint.rstrip("/"), environ), LOCAL)


def is_address(text: str) -> bool:
    """Whether a text can be asked by HTTP: scheme, host, and a port that is one."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def token_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """(the token, where it stands); two empty texts without one. Environment first, then the login's file."""
    if environ.get("HF_TOKEN"):
        return environ["HF_TOKEN"].strip(), "HF_TOKEN"
    cache = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    home = environ.get("HF_HOME") or str(Path(cache) / "huggingface")
    file = Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token")
    try:
        return file.read_text().strip(), str(file)
    except (OSError, UnicodeDecodeError):
        return "", ""


def _ask(endpoint: str, environ: Mapping[str, str]) -> list[Finding]:
    code, _ = _request("HEAD", f"{endpoint}/api/models/{MODEL}", "")
    if isinstance(code, str):
        return [Finding("hub", "note", f"{endpoint} is not reachable: {code}", LOCAL)]
    if code >= 400:
        return [Finding("hub", "note", f"{endpoint} answers {code} for {MODEL}", f"is HF_ENDPOINT right? {LOCAL}")]
    return [Finding("hub", "ok", endpoint), *_token(endpoint, *token_of(environ))]


def _token(endpoint: str, token: str, where: str) -> list[Finding]:
    page = f"{ENDPOINT}/{GATED}"
    if not token:
        remedy = f"only gated models need one, {GATED} for instance: accept the licence at {page}, then set HF_TOKEN"
        return [Finding("token", "note", "there is no token", remedy)]
    if not token.isascii() or not token.isprintable() or " " in token:
        return [Finding("token", "fix", f"{where} holds no token: blanks or other characters", "copy it anew")]
    code, body = _request("GET", f"{endpoint}/api/whoami-v2", token)
    if code in (401, 403):
        remedy = f"make a new one at {ENDPOINT}/settings/tokens"
        return [Finding("token", "fix", f"{where}: the hub refuses the token ({code})", remedy)]
    if code != 200:
        return [Finding("token", "note", f"{where}: the hub does not say whose it is ({code})")]
    owner = Finding("token", "ok", f"{where}: valid, of {body.get('name', '?')}")
    code, _ = _request("HEAD", f"{endpoint}/{GATED}/resolve/main/config.json", token)
    if code in (401, 403):
        remedy = f"accept its licence at {page}; a copy in the workspace needs none"
        return [owner, Finding("token", "note", f"it may not download {GATED}", remedy)]
    return [owner]


def _request(method: str, url: str, token: str) -> tuple[int | str, dict[str, Any]]:
    """(status code, or why there is none; the JSON of a GET)."""
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "ltx2-doctor"})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            page = json.loads(answer.read(1 << 16)) if method == "GET" else {}
            return answer.status, page if isinstance(page, dict) else {}
    except urllib.error.HTTPError as error:
        return error.code, {}
    except ValueError:
        return "its answer is no JSON", {}
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__, {}
