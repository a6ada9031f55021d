from predictor.lab.bench.figures import NAMES, figures, quantile, ratios
from predictor.lab.bench.results import Arrival, Result


def test_ratios_compare_medians_and_above_one_is_better(result: Result) -> None:
    assert ratios(result) == {
        "cold_page_cache_warm": 5.0,
        "cold_page_cache_dropped": 5.0,
        "warm_single_image": 5.0,
        "throughput_16": 16.0,  # lean: 16 in one second; plain, one at a time: one a second
        "warm_against_compile": 2.5,
        "eager_cold_first_image": 2.0,
        "eager_warm_single_image": 4.0,
        "eager_throughput_16": 8.0,
    }


def test_on_a_cpu_the_cold_start_has_another_name(result: Result) -> None:
    del result.machine["gpu"]
    assert ratios(result)["cpu_cold"] == 5.0
    assert "cold_page_cache_warm" not in ratios(result)


def test_figures_come_in_the_order_of_their_names(result: Result) -> None:
    assert [figure.name for figure in figures(result)] == [name for name in NAMES if name != "cpu_cold"]


def test_a_facet_of_one_side_has_no_ratio(result: Result) -> None:
    result.raw.cold = [sample for sample in result.raw.cold if sample.side == "lean"]
    assert set(ratios(result)) & {"cold_page_cache_warm", "cold_page_cache_dropped", "eager_cold_first_image"} == set()


def test_a_start_with_a_dropped_cache_is_no_start_with_a_warm_one(result: Result) -> None:
    result.raw.cold = [sample for sample in result.raw.cold if sample.page_cache == "dropped"]
    assert "cold_page_cache_warm" not in ratios(result)
    assert ratios(result)["cold_page_cache_dropped"] == 5.0


def test_a_burst_that_lost_a_request_does_not_count_as_throughput(result: Result) -> None:
    for run in result.raw.load:
        run.arrivals[0] = Arrival(0.0, 0.0, 0.1, 503)
    assert set(ratios(result)) & {"throughput_16", "eager_throughput_16"} == set()


def test_only_bursts_of_16_make_the_throughput(result: Result) -> None:
    result.raw.load = [run for run in result.raw.load if run.schedule != "burst of 16"]
    assert set(ratios(result)) & {"throughput_16", "eager_throughput_16"} == set()


def test_quantiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, share) for share in (0.0, 0.2, 0.5, 0.95, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]
