"""What the applications and their tests agree on."""

import re
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[3]

TENANT = "11111111-1111-4111-8111-111111111111"


def tenant_of(user: str) -> uuid.UUID:
    """The tenant that a user of apps/tabs.py follows."""
    return uuid.uuid5(uuid.NAMESPACE_URL, user)


def block(document: str, start: str) -> str:
    """The code block of a document that starts with the given line."""
    blocks = re.findall(r"```\w+\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    found: str
    (found,) = [text for text in blocks if text.startswith(start)]
    return found
