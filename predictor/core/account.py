"""Who asks, and what they may spend."""

from typing import Literal

import msgspec

from predictor.core.request import GenerationRequest

Scope = Literal["generate", "read", "admin"]
# generate: ask for pictures, cancel one's own. read: one's own jobs, images and usage. admin: everybody's.
SCOPES: tuple[Scope, ...] = ("generate", "read", "admin")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one key may spend; 0 is no limit."""

    megapixel_steps_per_minute: int = 0
    concurrent_jobs: int = 0
    gpu_seconds_per_month: int = 0  # calendar month, UTC
    wakes_per_hour: int = 0  # how often the key may wake a GPU that sleeps


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A key's own limits; None is the deployment's default."""

    megapixel_steps_per_minute: int | None = None
    concurrent_jobs: int | None = None
    gpu_seconds_per_month: int | None = None
    wakes_per_hour: int | None = None

    def over(self, default: Limits) -> Limits:
        """These limits where they are set, else the default's."""
        own = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(default, **own)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller."""

    key_id: str  # of an API key, or `oidc:` and the token's subject
    tenant: str  # whose jobs, images and cached results it sees
    scopes: frozenset[Scope]
    limits: Limits
    policy: str = "default"  # of moderation


def megapixel_steps(request: GenerationRequest) -> float:
    """What a request costs: 10⁶ pixels denoised once, for every image and step."""
    return request.height * request.width * request.steps * request.num_images / 1e6
