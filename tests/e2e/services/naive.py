"""The predictor that most people write first, after KServe's own example: diffusers inside a `kserve.Model`.

It is kept honest: no safety checker, no progress bar, the sampler and the PNG encoder of the predictor that it is
compared with, and its port opens when the model is there, so that no request comes too early.
"""

import base64
import io
import os

import diffusers
import kserve
import torch


class StableDiffusion(kserve.Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> bool:
        self.pipeline = diffusers.StableDiffusionPipeline.from_pretrained(os.environ["MODEL"], safety_checker=None)
        self.pipeline.scheduler = diffusers.DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.set_progress_bar_config(disable=True)
        self.ready = True
        return self.ready

    def predict(self, payload: kserve.InferRequest, headers: dict | None = None) -> kserve.InferResponse:
        (prompt,) = payload.inputs[0].data
        order = payload.parameters
        image = self.pipeline(
            prompt,
            num_inference_steps=order["steps"],
            guidance_scale=order.get("guidance_scale", 7.5),
            height=order["height"],
            width=order["width"],
            generator=torch.Generator().manual_seed(order["seed"]),
        ).images[0]
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        file = kserve.InferOutput("image", [1], "BYTES", data=[base64.b64encode(buffer.getvalue()).decode()])
        return kserve.InferResponse(payload.id or "", self.name, [file])


if __name__ == "__main__":
    kserve.ModelServer().start([StableDiffusion("shapes")])
