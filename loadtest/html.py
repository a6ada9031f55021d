"""Parts of a page; every text is escaped here."""

import base64
from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, inner: str, words: str = "") -> str:
    """A heading, what there is to say, and what is shown."""
    note = f"<p>{escape(words)}</p>" if words else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{note}\n{inner}\n</section>"


def plot(title: str, svg: str, words: str) -> str:
    """A section of one picture."""
    return section(title, image(svg, title), words)


def image(svg: str, alt: str) -> str:
    """A picture that is part of the page."""
    content = base64.b64encode(svg.encode()).decode()
    return f"<img alt='{escape(alt, quote=True)}' src='data:image/svg+xml;base64,{content}'>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Rows of text; the columns of `numbers` stand to the right, and a line break in a cell is one."""
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in right else ''}>{escape(cell).replace(chr(10), '<br>')}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    return f"<div class=wide><table>{top}<tbody>\n{body}\n</tbody></table></div>"
