"""Whether the token of this user is shown to a Ray cluster: Ray decides it when it is imported.

`ray start` asks for a token since Ray 2.59, and who names an address shows none unless told to. A
cluster that was started without one lets in who shows a token, but its answers to them are refused,
and no task ever runs.
"""

from __future__ import annotations

import os
import subprocess
import sys

MODE = "RAY_AUTH_MODE"
_ASK_S = 30.0
# Ends with 0 where the cluster answers to somebody without a token.
_ASK = """
import sys
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient
client = GcsClient(address=canonicalize_bootstrap_address(sys.argv[1]))
client.internal_kv_keys(b"", namespace=b"session")
"""


def has_token() -> bool:
    """Whether this user has one."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or os.path.exists(os.path.expanduser("~/.ray/auth_token"))


def keep_token_from(address: str | None) -> None:
    """Have no token shown to a cluster that asks for none. Called before Ray is imported.

    Args:
        address: of a running cluster; None: one is started here, which asks for the token.
    """
    if address is None or "ray" in sys.modules or MODE in os.environ or not has_token():
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK, address],
            env=os.environ | {MODE: "disabled"},
            capture_output=True,
            timeout=_ASK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:  # whether it answers at all, others say
        return
    if asked.returncode == 0:
        os.environ[MODE] = "disabled"
