"""What fixes the pixels, hashed: two requests with one fingerprint have the same pictures."""

import hashlib

import msgspec

from predictor.core.request import GenerationRequest

# Raised whenever the engine's numbers change on purpose: another noise layout, another coefficient of a sampler.
NUMERICS = 1


def fingerprint(request: GenerationRequest, revision: str) -> str:
    """Hex SHA-256 of the canonical request, the model's revision and the version of the engine's numerics."""
    canonical = msgspec.json.encode([NUMERICS, revision, request], order="deterministic")
    return hashlib.sha256(canonical).hexdigest()
