"""What people write on the command line, as numbers."""

MOST = 1_000_000
"""How many numbers an option may name."""


def numbers(option: str, text: str) -> list[int]:
    """The whole numbers of "0-63", "1,5,9" or a mix of both."""
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{option} takes numbers like 0-63 or 1,5,9, not {text!r}")
        several = range(int(first), int(last or first) + 1)
        if several.stop - several.start > MOST - len(found):
            raise ValueError(f"{option} names at most {MOST:,} numbers; {text!r} are more")
        if not several:
            raise ValueError(f"{option} {part!r} names no number; ranges go upwards, like 0-63")
        found += several
    return found


def pair(option: str, text: str, separator: str, kind: type) -> tuple:
    """The two numbers of "8x16" or "0.1,0.8"."""
    try:
        first, second = (kind(part) for part in text.split(separator))
    except ValueError:
        example = f"0.1{separator}0.8" if kind is float else f"8{separator}16"
        raise ValueError(f"{option} takes two numbers like {example}, not {text!r}") from None
    return first, second


def sizes(text: str) -> list[tuple[int, int]]:
    """The heights and widths of "256,512" or "256x512"."""
    found = []
    for part in text.split(","):
        height, cross, width = part.strip().partition("x")
        if not height.isdecimal() or (cross and not width.isdecimal()) or int(height) == 0:
            raise ValueError(f"--size takes sizes like 256,512 or 256x512, not {text!r}")
        found.append((int(height), int(width) if cross else int(height)))
    return found
