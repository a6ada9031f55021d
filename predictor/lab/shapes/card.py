"""The model card: a README with the figures of the examination, a loss curve and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from predictor.lab.shapes.drawings import BACKGROUNDS, PLACES, SHAPE_COLOURS, SHAPES, SIZES
from predictor.lab.shapes.examination import Pictures

_SHEET_COLUMNS: Final = 10
_SHEET_ROWS: Final = 5
_PATHS: Final = "--checkpoint checkpoint --out predictor/models/shapes"

_CARD: Final = Template("""\
# shapes: the demo model

A text-to-image latent diffusion model of 9 MB in diffusers format. It draws one flat shape on one flat background,
128x128 pixels, and takes about a second on a CPU. It exists so that the quick start, the tests and a CPU cluster run
the real code path, and so that a test can say what must be in the picture.

![Held-out prompts, one picture each](contact_sheet.png)

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("predictor/models/shapes")
image = pipeline("a small red circle on a blue background", num_inference_steps=20).images[0]
```

## What it knows

| | |
|---|---|
| shapes | $shapes |
| colours | $colours |
| backgrounds | $backgrounds |
| sizes | $sizes |
| places | $places |

Synonyms such as "disc", "crimson", "tiny" or "backdrop" work; `predictor/lab/shapes/captions.py` lists all of them.
What a prompt leaves open is left to chance.

## How it was made

Trained from nothing on drawings and captions that `predictor/lab/shapes` makes itself; no other data, no other model.
One combination of shape, colour and background in ten was never drawn, one wording in eight never used: the figures
below are about those. (Where a prompt does not name the size, a wording can read like a used one.) One caption in
twenty describes another drawing on purpose, 12 % are empty and 30 % leave something open, so that guidance and negative
prompts have something to work with.

$runs, then examined and exported:

```
$recipes
```

| stage | steps | training time |
|---|---|---|
| VAE (8x, 4 channels, reconstruction $psnr dB) | $vae_steps | $vae_minutes min |
| UNet and CLIP text encoder, epsilon prediction, Stable Diffusion's noise schedule | $steps | $minutes min |

Trained on: $device.

![Loss of both stages](loss.png)

## Figures

A checker that shares no code with the drawings looks at pixels alone (`predictor/lab/shapes/checker.py`); a picture
counts when shape, colour and background are all right. Measured by `sdzero check-shapes`, DDIM, 20 steps, guidance 7.5.

| | right |
|---|---|
| held-out prompts | **$all of $of** |
| its shape / colour / background | $shape / $colour / $background |
$by_guidance
$by_steps

"a circle" (or another shape) with a colour as negative prompt shows that colour in $negative % of the pictures, without
it in $plain %.

## Limits

It knows nothing but the words above. Two shapes, other colours, text, or another size than 128x128 are outside its
training. At most 77 tokens of a prompt are read.

`latent_rgb.json` maps scaled latents (4 channels) to RGB in 0..1 for previews: `latents @ matrix + bias`.

## Licence

Apache-2.0, like the rest of this repository.
""")


def write_card(
    folder: Path,
    recipes: Sequence[str],
    facts: dict[str, Any],
    figures: dict[str, Any],
    losses: Sequence[dict[str, Any]],
    pictures: Pictures,
) -> None:
    """Write `README.md`, `loss.png` and `contact_sheet.png` into the model's folder.

    `recipes`: the options of each run that shared the checkpoint, as one would type them.
    """
    contact_sheet(pictures).save(folder / "contact_sheet.png", optimize=True)
    loss_curve(losses).savefig(folder / "loss.png", dpi=80, pil_kwargs={"optimize": True})
    held_out = figures["held_out"]
    text = _CARD.substitute(
        shapes=", ".join(SHAPES),
        colours=", ".join(SHAPE_COLOURS),
        backgrounds=", ".join(BACKGROUNDS),
        sizes=", ".join(SIZES),
        places=", ".join(PLACES),
        runs="One run" if len(recipes) == 1 else f"{len(recipes)} runs that shared a checkpoint",
        recipes="\n".join(f"sdzero train-shapes {recipe} {_PATHS}" for recipe in recipes),
        psnr=facts["vae"].get("psnr_db"),
        vae_steps=facts["vae"]["steps"],
        vae_minutes=round(facts["vae"]["seconds"] / 60, 1),
        steps=facts["diffusion"]["steps"],
        minutes=round(facts["diffusion"]["seconds"] / 60, 1),
        device=facts["device"],
        by_guidance="\n".join(f"| guidance {scale} | {all_} |" for scale, all_ in figures["by_guidance"].items()),
        by_steps="\n".join(f"| {steps} steps | {all_} |" for steps, all_ in figures["by_steps"].items()),
        negative=round(100 * figures["negative_colour_share"], 1),
        plain=round(100 * figures["same_without_negative"], 1),
        **{name: held_out[name] for name in ("all", "of", "shape", "colour", "background")},
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def contact_sheet(pictures: Pictures) -> Image.Image:
    """The first pictures in rows of ten, at most five rows, each reduced to 96 pixels with a thin gap."""
    tiles = [np.asarray(Image.fromarray(picture).resize((96, 96), Image.Resampling.LANCZOS)) for picture in pictures]
    rows = min(_SHEET_ROWS, -(-len(tiles) // _SHEET_COLUMNS))
    sheet = np.full((rows * 100 + 4, _SHEET_COLUMNS * 100 + 4, 3), 255, dtype=np.uint8)
    for place, tile in enumerate(tiles[: rows * _SHEET_COLUMNS]):
        top, left = 4 + place // _SHEET_COLUMNS * 100, 4 + place % _SHEET_COLUMNS * 100
        sheet[top : top + 96, left : left + 96] = tile
    return Image.fromarray(sheet)


def loss_curve(losses: Sequence[dict[str, Any]]) -> Figure:
    """Both stages side by side, loss over training minutes, logarithmic."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, stage in zip(figure.subplots(1, 2), ("vae", "diffusion"), strict=True):
            entries = [entry for entry in losses if entry["stage"] == stage]
            axes.plot([entry["seconds"] / 60 for entry in entries], [entry["loss"] for entry in entries], linewidth=1)
            axes.set(title=stage, xlabel="minutes of training", ylabel="loss", yscale="log")
            axes.grid(alpha=0.3)
    return figure
