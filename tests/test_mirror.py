"""Each module of the package has a test file, or is listed with those that test it."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]

# By the file of tests through which they are tested, modules without one of their own.
TESTED_BY = {
    "cli/test_main.py": "cli.argument_types cli.parser script",
    "cli/test_detect.py": "cli.detect_arguments cli.detect_output cli.environment "
    "cli.inputs pipeline.findings pipeline.result_formats pipeline.result_lines",
    "cli/test_detect_clips.py": "cli.camera",
    "cli/test_outputs.py": "cli.side_outputs files media.clip_encoding",
    "cli/bench/test_run.py": "cli.bench.cases cli.bench.chain cli.bench.command "
    "cli.bench.options cli.bench.peers cli.bench.processes cli.bench.tables "
    "cli.bench.worker media.samples",
    "corpora/test_corpus_detection.py": "corpora.accounts corpora.copies "
    "corpora.running corpora.shard_judge corpora.shards "
    "reports.image_copies",
    "data/builders/test_base.py": "data.builders.account data.builders.archives "
    "data.builders.streams",
    "data/builders/test_face_rows.py": "data.builders.known_face_sets",
    "data/test_crop_heads.py": "corpora.crop_parts data.head_tables",
    "data/test_prepared.py": "data.batches "
    "data.classifier_input data.detector_examples data.detector_input "
    "data.unlabeled labels media.resize",
    "data/test_degradations.py": "data.pixel_changes",
    "data/test_record_columns.py": "data.column_building",
    "data/test_record_index.py": "data.crop_cache data.records",
    "datasets/test_labeled_heads.py": "data.builders.class_names "
    "data.builders.coco_layout data.builders.head_boxes data.builders.labeled_images "
    "data.builders.voc_layout",
    "evaluation/audit/test_scan.py": "evaluation.audit.folds evaluation.audit.leaks "
    "evaluation.audit.metadata_baseline evaluation.audit.near_duplicates "
    "evaluation.audit.survey",
    "evaluation/test_detector_losses.py": "training.objectives",
    "evaluation/test_robustness.py": "reports.robustness_report",
    "evaluation/test_source_pairs.py": "evaluation.audit.low_level "
    "evaluation.classifiers evaluation.maker_evaluation reports.source_tables",
    "export/test_detector_api.py": "export.runtime",
    "export/test_publish.py": "export.inspection export.model_outputs export.warmup",
    "media/test_clip_decoding.py": "media.clip_frame",
    "media/test_decode.py": (
        "media.header_fields media.image_status media.jpeg_headers media.webp_headers"
    ),
    "media/test_jpeg.py": "media.exif",
    "models/test_conformance.py": "models.efficientnet_lite models.mesonet",
    "models/test_efficientdet.py": "models.bifpn models.efficientnet",
    "models/test_foreign_weights.py": "models.efficientdet_weights "
    "models.keras_weights models.xception_weights",
    "data/test_self_blending.py": "data.blending_masks",
    "models/test_grad_cam.py": "pipeline.explainer",
    "models/test_matching.py": "models.grid_matching",
    "models/test_mobilenet.py": "models.moment_pooling",
    "pipeline/test_deepfake_pipeline.py": "export.saved_pipeline "
    "pipeline.build pipeline.detector_settings pipeline.head_outputs "
    "pipeline.interfaces pipeline.model_functions",
    "pipeline/test_tiling.py": "pipeline.head_detection",
    "reports/test_classification_report.py": "reports.classification_plots "
    "reports.classification_tables",
    "reports/test_results_report.py": "cli.report reports.result_files",
    "reports/page/test_page.py": "reports.page.about reports.page.clip_entry "
    "reports.page.entries reports.page.formatting reports.page.heads "
    "reports.page.marks reports.page.thumbnails reports.page.timeline",
    "retrieval/test_index.py": "retrieval.familiarity retrieval.storage",
    "retrieval/test_index_building.py": "cli.search cli.search_output "
    "evaluation.audit.embedded_duplicates evaluation.retrieval_evaluation "
    "metrics.retrieval pipeline.embedding reports.contact_sheet retrieval.lookup",
    "serving/test_batching.py": "serving.errors",
    "serving/test_serving_conformance.py": "serving.examples serving.json_examples "
    "serving.json_reader serving.tensors",
    "serving/test_fuzz.py": "serving.json_tensors serving.json_values",
    "serving/test_models.py": "serving.config serving.image_bounds "
    "serving.inference serving.model_state serving.model_store serving.saved_model "
    "serving.servable serving.versions",
    "serving/test_server.py": "cli.serve serving.command_line serving.connections "
    "serving.grpc_services serving.listening serving.metrics "
    "serving.options serving.ports serving.rest serving.security serving.service "
    "serving.web",
    "serve/test_benchmark_serve.py": "serving.load_clients",
    "train/test_folds.py": "data.conditions training.held_out",
    "train/test_run_safety.py": "training.evaluation_log "
    "training.classifier_flags training.detector_flags "
    "training.label_counts training.run_flags "
    "training.stop_signals",
    "train/test_scripts.py": "evaluation.evaluation_flags",
    "training/test_checkpoints.py": "models.kept_steps",
    "training/test_fused_batch_norm.py": "training.train_step",
    "training/test_loop.py": "training.progress_bar training.run_state "
    "training.settings training.tensorboard",
}


def _name(path, folder):
    return ".".join(path.relative_to(folder).with_suffix("").parts)


def test_each_module_has_tests_or_says_which():
    package = ROOT / "dfdetect"
    modules = {
        _name(path, package)
        for path in package.rglob("*.py")
        if not path.stem.startswith("__")
    }
    tested = {
        _name(path.with_name(path.name.removeprefix("test_")), ROOT / "tests")
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    named = [module for modules in TESTED_BY.values() for module in modules.split()]
    assert modules - tested == set(named) and len(set(named)) == len(named)
    assert not [path for path in TESTED_BY if not (ROOT / "tests" / path).exists()]


def test_names_of_test_files_are_unique():
    # Folders of tests are not packages, so that two of one name would be one module.
    files = [*(ROOT / "tests").rglob("test_*.py")]
    assert len({path.name for path in files}) == len(files)
    assert not list((ROOT / "tests").rglob("__init__.py"))
