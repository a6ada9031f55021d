"""From a finished job to the files that its caller wants: as bytes, or as links."""

from collections import OrderedDict
from collections.abc import Callable

from predictor.core.infotext import infotext
from predictor.core.jobs import Job, StoredImage
from predictor.core.request import ImageEncoding
from predictor.edge.pictures import Pictures
from predictor.edge.stores.cache import ResultCache
from predictor.edge.stores.images import Images

REMEMBERED = 4096  # variants whose names are known


class Delivery:
    """Images are stored once, as PNG; another format is a file of its own, made when somebody wants it first."""

    def __init__(
        self,
        images: Images,
        cache: ResultCache,
        packer: Pictures,
        *,
        model: str,
        metadata: bool,
        clock: Callable[[], float],
    ) -> None:
        self._images = images
        self._cache = cache
        self._packer = packer
        self._model = model
        self._metadata = metadata
        self._clock = clock
        self._variants: OrderedDict[tuple[str, ImageEncoding], str] = OrderedDict()

    async def files(self, job: Job) -> list[bytes]:
        """The job's images in its encoding.

        Raises:
            NotFound: an image's time was over.
        """
        return [(await self._variant(job, image))[1] for image in _images(job)]

    async def links(self, job: Job, base_url: str) -> list[str]:
        """An address for each of the job's images, good for a while."""
        now = self._clock()
        found = []
        for image in _images(job):
            known = image.name if job.encoding.format == "png" else self._variants.get((image.name, job.encoding))
            name = known or (await self._variant(job, image))[0]
            found.append(await self._images.link(name, base_url, now))
        return found

    async def original(self, image: StoredImage) -> bytes:
        """The stored PNG."""
        content = await self._cache.image(image.name)
        return await self._images.get(image.name) if content is None else content

    async def _variant(self, job: Job, image: StoredImage) -> tuple[str, bytes]:
        if job.encoding.format == "png":
            return image.name, await self.original(image)
        key = (image.name, job.encoding)
        if name := self._variants.get(key):
            self._variants.move_to_end(key)
            return name, await self._images.get(name)
        generation = job.generation
        text = infotext(generation.request, image.seed, self._model, generation.revision) if self._metadata else None
        content = await self._packer.delivered(await self.original(image), job.encoding, text)
        name = await self._images.keep(generation, content, job.encoding.format, self._clock())
        self._variants[key] = name
        if len(self._variants) > REMEMBERED:
            self._variants.popitem(last=False)
        return name, content


def _images(job: Job) -> tuple[StoredImage, ...]:
    result = job.generation.result
    return result.images if job.state == "done" and result is not None else ()
