"""Pictures for people: on a contact sheet, and in a terminal."""

from typing import Any

from PIL import Image, ImageDraw

MARGIN, CAPTION = 8, 14  # pixels of the contact sheet


def contact_sheet(pictures: list[Image.Image], captions: list[str], columns: int = 3) -> Image.Image:
    """The pictures in a grid, each over its caption."""
    width = max(picture.width for picture in pictures) + MARGIN
    height = max(picture.height for picture in pictures) + MARGIN + CAPTION
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * width + MARGIN, -(-len(pictures) // columns) * height + MARGIN), "#888888")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * width + MARGIN, number // columns * height + MARGIN
        sheet.paste(picture, (left, top))
        room = (width - MARGIN) // 6  # the default font is 6 pixels wide
        pen.text(
            (left, top + picture.height + 1),
            caption if len(caption) <= room else caption[: room - 1] + "…",
            fill="white",
        )
    return sheet


def in_terminal(picture: Image.Image, columns: int) -> str:
    """The picture in coloured half blocks: two pixels per character (ISO 8613-6 colours)."""
    rows = max(2, round(picture.height / picture.width * columns) // 2 * 2)
    small = picture.convert("RGB").resize((columns, rows))
    pixel: Any = small.load()
    lines = []
    for y in range(0, rows, 2):
        cells = []
        for x in range(columns):
            (r, g, b), (r2, g2, b2) = pixel[x, y], pixel[x, y + 1]
            cells.append(f"\x1b[38;2;{r};{g};{b};48;2;{r2};{g2};{b2}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
