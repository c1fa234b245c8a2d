"""The whole gate: what is to be judged goes in, a report comes out. Nothing raises for what a model is: that is a verdict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from dropout_api.candidate import MC, ONNX, PROGRAM, CandidateConfig, Task, files_for
from dropout_api.metrics import QualityBar, TaskKind
from dropout_api.spec import ExportSpec
from dropout_api.verdict import Basis, CheckResult
from dropout_trainer.gate import candidate, programs, quality
from dropout_trainer.gate.baseline import Baseline
from dropout_trainer.gate.checks.batches import batch_invariance, batch_sizes
from dropout_trainer.gate.checks.expectation import expectation
from dropout_trainer.gate.checks.graph import decomposed_graph, graph
from dropout_trainer.gate.checks.live_ops import live_ops
from dropout_trainer.gate.checks.mc import MC_CHECKS, McSubject
from dropout_trainer.gate.checks.module_walk import module_walk
from dropout_trainer.gate.checks.parity import parity
from dropout_trainer.gate.checks.positive_control import positive_control
from dropout_trainer.gate.checks.repeat import repeat
from dropout_trainer.gate.checks.untouched import untouched
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.gate.outputs import Outputs, finite
from dropout_trainer.gate.target import Module, Program, Target
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run, failed, not_applicable, passed

SourceCheck = Callable[[str, Module, Inputs], CheckResult]
SOURCE_CHECKS: dict[str, SourceCheck] = {
    "module_walk": module_walk, "live_ops": live_ops, "source_repeat": repeat, "source_untouched": untouched,
    "source_batch_invariance": batch_invariance, "expectation": expectation, "positive_control": positive_control,
}
"""What needs the live model: measured where it may be run, attested by the training pod otherwise."""
BEHAVIOUR: dict[str, Callable[[str, Target, Inputs], CheckResult]] = {
    "batch_sizes": batch_sizes, "repeat": repeat, "untouched": untouched, "batch_invariance": batch_invariance,
}
"""What is measured on the program that will be served."""
PLAIN = ExportSpec()
"""Asks for nothing beyond the eval program."""
Recorded = Sequence[tuple[Call, Outputs]]
"""Calls, and what the eager model answered to them in eval mode."""


@dataclass(frozen=True)
class Inspection:
    """A gate's report and what was learnt on the way; there is no config, and there are no digests, when the candidate was unreadable."""

    report: GateReport
    config: CandidateConfig | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each of the candidate's files."""

    @property
    def sha256(self) -> str | None:
        """Of the exported program."""
        return self.digests.get(PROGRAM)


def examine_module(module: nn.Module, inputs: Inputs) -> list[CheckResult]:
    """The checks of a live model, in the mode that it is in."""
    target = Module(module)
    settled = settle(target, inputs)
    return [attempt(name, lambda check=check, name=name: check(name, target, settled)) for name, check in SOURCE_CHECKS.items()]  # type: ignore[misc]


def attest(module: nn.Module, inputs: Inputs) -> list[CheckResult]:
    """The same as a training pod says it of the model that it exports."""
    return [check.model_copy(update={"basis": Basis.ATTESTED}) for check in examine_module(module, inputs)]


def examine_program(
    program: Program, inputs: Inputs, recorded: Recorded = (), strangers: bool = False, sizes: Tensor | None = None,
) -> list[CheckResult]:
    """The checks of an exported program. `strangers`: whether ops of other libraries are let through; `sizes`: see `Heldout.sizes`."""
    settled = settle(program, inputs)
    checks = [attempt("graph", lambda: graph("graph", program, strangers)),
              attempt("decomposed_graph", lambda: decomposed_graph("decomposed_graph", program, strangers))]
    checks += examine_behaviour(program, settled)
    if recorded:
        return [*checks, attempt("parity", lambda: parity("parity", program, recorded, sizes))]
    return [*checks, not_applicable("parity", "no answers of the eager model to compare with")]


def examine_behaviour(target: Target, inputs: Inputs) -> list[CheckResult]:
    """What can be seen of anything that answers calls."""
    return [attempt(name, lambda check=check, name=name: check(name, target, inputs)) for name, check in BEHAVIOUR.items()]  # type: ignore[misc]


def settle(target: Target, inputs: Inputs) -> Inputs:
    """Inputs with the strongest variation that the target answers without NaN, unless it answers its own example with it."""
    try:
        strict = finite(target.seeded(inputs.example, 0))
    except Exception:
        return inputs  # the checks say it
    return inputs.settle(lambda call: finite(target.seeded(call, 0)) or not strict)


def inspect(
    folder: Path, bars: Sequence[QualityBar] = (), export: ExportSpec = PLAIN, baselines: Mapping[str, Baseline] | None = None,
) -> Inspection:
    """Runs every check on the candidate in `folder`, whose job has asked for `export`; `baselines` by the alias that bars name."""
    checks: list[CheckResult] = []
    name, config = "digests", None
    digests: Mapping[str, str] = {}
    try:
        digests = candidate.check_digests(folder, files_for(export))
        checks.append(passed(name, f"all files match their SHA-256; program {digests[PROGRAM]}"))
        name = "candidate"
        config = candidate.read_config(folder)
        heldout = candidate.read_heldout(folder, config)
        checks.append(passed(name, f"{len(heldout.target)} held-out rows, {_kind(config.task)}, model {config.model_factory}"))
        name = "archive"
        program = candidate.Predictor(programs.load(folder / PROGRAM), outputs=config.task.outputs)
        checks.append(passed(name, "the program's archive holds tensors and torch's own ops, and no code"))
    except RefusedError as error:
        return Inspection(GateReport(checks=[*checks, failed(name, error.evidence, error.remedy)]), config, digests)
    report = examine_candidate(program, heldout, config, bars, baselines or {})
    optional = examine_mc(folder / MC, program, heldout, config.task) if MC in digests else []
    if ONNX in digests:
        optional += examine_onnx(folder / ONNX, heldout, config.task)
    return Inspection(report.model_copy(update={"checks": [*checks, *report.checks, *optional]}), config, digests)


def _kind(task: Task) -> str:
    if task.kind is TaskKind.CLASSIFICATION:
        return f"{task.outputs} classes"
    return f"{task.values} values a row" + (f" in {len(task.quantiles)} quantiles" if task.quantiles else "")


def examine_candidate(
    program: candidate.Predictor, heldout: candidate.Heldout, config: CandidateConfig, bars: Sequence[QualityBar],
    baselines: Mapping[str, Baseline],
) -> GateReport:
    """The checks that need a loaded program, what the training pod attests, and the quality bars."""
    task = config.task
    checks = examine_program(program, heldout.inputs(), heldout.recorded(), sizes=heldout.sizes(task))
    metrics: dict[str, float] = {}

    def measured_quality() -> CheckResult:
        exam = quality.Exam(task, heldout, quality.answers(program, heldout), bars, baselines)
        metrics.update(exam.metrics)
        return quality.quality(exam)

    return GateReport(checks=[*checks, *attested(config), attempt("quality", measured_quality)], metrics=metrics)


def examine_mc(path: Path, evaluated: candidate.Predictor, heldout: candidate.Heldout, task: Task) -> list[CheckResult]:
    """The checks of the MC-dropout program in `path`, beside the eval program of the same candidate."""
    try:
        program = candidate.Predictor(programs.load(path), "the MC-dropout program", evaluated.outputs)
    except RefusedError as error:
        return [failed("mc_archive", error.evidence, error.remedy)]
    subject = McSubject(program, evaluated, heldout.inputs(), heldout.recorded(), heldout.sizes(task))
    checks = [attempt(name, lambda check=check, name=name: check(name, subject)) for name, check in MC_CHECKS.items()]  # type: ignore[misc]
    return [passed("mc_archive", "its archive holds tensors and torch's own ops, and no code"), *checks]


def examine_onnx(path: Path, heldout: candidate.Heldout, task: Task) -> list[CheckResult]:
    """The checks of the ONNX file in `path`."""
    from dropout_trainer.gate import onnx_model  # onnxruntime takes a while, and few ask for it

    try:
        model = onnx_model.load(path, task.outputs)
    except RefusedError as error:
        return [failed("onnx_archive", error.evidence, error.remedy)]
    inputs, recorded = heldout.inputs(), heldout.recorded()
    settled = settle(model, inputs)
    return [
        passed("onnx_archive", "the file holds tensors and ONNX's own ops, and no code"),
        attempt(onnx_model.GRAPH, lambda: onnx_model.scan(model)),
        *(attempt(f"onnx_{name}", lambda name=name: BEHAVIOUR[name](f"onnx_{name}", model, settled)) for name in onnx_model.BEHAVIOUR),  # type: ignore[misc]
        attempt("onnx_parity", lambda: parity("onnx_parity", model, recorded, heldout.sizes(task))),
    ]


def attested(config: CandidateConfig) -> list[CheckResult]:
    """What the training pod says of the live model, each check once. One that it does not tell of could not run, which is no pass."""
    told = {check.name: check for check in config.attested}
    missing = could_not_run("", "the training pod attests nothing of this check", "export with this release's trainer")
    return [told.get(name, missing).model_copy(update={"name": name, "basis": Basis.ATTESTED}) for name in SOURCE_CHECKS]


def attempt(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    """A check that raises has shown nothing. Running out of memory is the verifier's own trouble and is passed on."""
    try:
        return check()
    except MemoryError:
        raise
    except RefusedError as error:
        return failed(name, error.evidence, error.remedy)
    except Exception as error:
        if "DefaultCPUAllocator" in str(error):  # torch's way of saying it
            raise MemoryError from error
        lines = str(error).strip().splitlines() or [""]
        return could_not_run(name, f"the check could not run: {type(error).__name__} {lines[0][:200]}")


