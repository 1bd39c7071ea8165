"""Workers that are loaded once a process, and the threads that each has."""

import os
import threading

import pytest

beam = pytest.importorskip("apache_beam")
from apache_beam.ml.inference import base as inference  # noqa: E402
from apache_beam.options import pipeline_options  # noqa: E402
from apache_beam.testing import util  # noqa: E402

from dfdetect.corpora import process_handler  # noqa: E402

_LOADED = []


class _Doubler:
    """Something that works, and knows how often it was loaded."""

    def __init__(self):
        _LOADED.append(threading.get_ident())

    def double(self, number):
        return 2 * number


def test_a_worker_is_loaded_once_and_given_each_element():
    handler = process_handler.ProcessHandler(_Doubler, _Doubler.double, None)
    options = pipeline_options.PipelineOptions(["--allow_unsafe_triggers"])
    with beam.Pipeline("DirectRunner", options=options) as pipeline:
        found = (
            pipeline
            | beam.Create(range(100))
            | beam.Reshuffle()
            | inference.RunInference(handler)
            | beam.Map(lambda one: (one.example, one.inference))
        )
        util.assert_that(found, util.equal_to([(i, 2 * i) for i in range(100)]))
    assert len(_LOADED) == 1


def test_no_element_waits_for_the_end_of_its_bundle():
    """The DaskRunner drops what comes then."""
    handler = process_handler.ProcessHandler(_Doubler, _Doubler.double, None)
    pipeline = beam.Pipeline("DirectRunner")
    _ = pipeline | beam.Create(range(100)) | inference.RunInference(handler)
    seen = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def visit_transform(self, transform_node):
            seen.append(getattr(transform_node.transform, "fn", None))

    pipeline.visit(Visitor())
    functions = [one for one in seen if isinstance(one, beam.DoFn)]
    ends = [
        one
        for one in functions
        if type(one).finish_bundle is not beam.DoFn.finish_bundle
    ]
    # Its end counts metrics, and yields nothing.
    assert [type(one).__name__ for one in ends] == ["_RunInferenceDoFn"]
    assert len(functions) > 2


@pytest.mark.parametrize(
    ("runner", "options", "processes", "threads"),
    [
        ("DirectRunner", [], 1, None),
        ("DirectRunner", ["--direct_running_mode=multi_threading"], 1, None),
        ("DirectRunner", ["--direct_num_workers=2"], 2, 3),
        ("DirectRunner", ["--direct_num_workers=4"], 4, 1),
        ("DirectRunner", ["--direct_num_workers=9"], 9, 1),
        ("DirectRunner", ["--direct_num_workers=0"], 6, 1),
        ("FlinkRunner", [], 1, 1),
    ],
)
def test_processes_share_the_cores(monkeypatch, runner, options, processes, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    if any("num_workers" in option for option in options):
        options = [*options, "--direct_running_mode=multi_processing"]
    parsed = pipeline_options.PipelineOptions(options)
    pipeline = beam.Pipeline(runner, options=parsed)
    assert process_handler.count_processes(pipeline) == processes
    assert process_handler.count_threads(pipeline) == threads
