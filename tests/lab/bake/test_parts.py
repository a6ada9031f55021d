from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from predictor.engine.folder import ModelFolder
from predictor.lab.bake import parts
from predictor.lab.bake.check import counts
from predictor.lab.bake.plan import MAX_ROWS, Job, jobs


def steps(model: Path, rows: int) -> list[Job]:
    return [job for job in jobs(ModelFolder.open(model), "cpu", [], rows, False) if job.kind == "step"]


@pytest.mark.parametrize(("name", "rows"), [("small-sd", MAX_ROWS), ("small-sdxl", 3)])
def test_images_and_evaluations_vary_apart_up_to_the_limit(small: Callable[..., Path], name: str, rows: int) -> None:
    job = steps(small(name), rows)[0]
    inputs, varying = parts.export_example(job)
    with torch.no_grad():
        # Raises if the program holds for fewer sizes than asked for, or for related ones only.
        program = torch.export.export(parts.blank(job), inputs, dynamic_shapes=varying, strict=False)
    ranges = sorted((int(found.lower), int(found.upper)) for found in program.range_constraints.values())
    assert ranges == [(2, rows), (2, 2 * rows)]


def test_one_image_more_than_the_limit_is_more_than_a_package_can_hold(small: Callable[..., Path]) -> None:
    job = steps(small("small-sd"), MAX_ROWS + 1)[0]
    inputs, varying = parts.export_example(job)
    with torch.no_grad(), pytest.raises(Exception, match="evaluations"):
        torch.export.export(parts.blank(job), inputs, dynamic_shapes=varying, strict=False)


def test_random_weights_have_nothing_to_fold(small: Callable[..., Path]) -> None:
    for job in jobs(ModelFolder.open(small("small-sdxl")), "cpu", [], 3, False):
        for name, tensor in parts.blank(job).state_dict().items():
            assert tensor.unique().numel() == tensor.numel() or tensor.numel() > 1000, name


def test_examples_are_contiguous_and_name_only_what_is_there(small: Callable[..., Path]) -> None:
    job = steps(small("small-sdxl"), 8)[0]
    for images, evaluations in [*counts(job), (5, 3)]:
        inputs = parts.example(job, images, evaluations, torch.Generator().manual_seed(images))
        assert all(tensor.is_contiguous() for tensor in inputs)
        image, positive, negative = inputs[-3:]
        assert image.shape == (evaluations,)
        assert image.max() < images
        assert max(positive.max(), negative.max()) < evaluations


def test_the_check_tries_both_ends_and_a_number_between(small: Callable[..., Path]) -> None:
    several, one = steps(small("small-sd"), 16)
    assert counts(several) == [(2, 2), (9, 17), (16, 32)]
    assert counts(one) == [(1, 2)]
