"""Texts and names from files, made safe to show on a terminal, in a page and in a picture."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """`text` with control characters (terminal escapes, say) as the symbols that stand for them;
    line breaks and tabs stay.

    >>> visible("\\x1b[31mred\\r\\n")
    '␛[31mred\\n'
    """
    return _CONTROL.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(control: re.Match[str]) -> str:
    code = ord(control[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"
