"""Text from elsewhere, made safe to print: one line, without terminal control sequences or characters that reorder text. Pure."""


def printable(text: object) -> str:
    """A text with everything unprintable as an escape: `\\n`, `\\x1b`, `\\u202e`.

    Control characters, line breaks, half surrogates and marks that turn the direction of writing are unprintable (Unicode's categories
    Cc, Cf, Cs, Co, Cn, Zl, Zp, and Zs but for the space).
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown
    )


def printable_lines(text: str) -> str:
    """The same of a text of several lines, which stay."""
    return "\n".join(printable(line) for line in text.split("\n"))
