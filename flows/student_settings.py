"""Settings of the student: its data, its training, what may follow that, and how it is measured and let through."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from flows.section import File, Model, Section

Order = Literal["shuffled", "easy_to_hard"]


class DataSettings(Section):
    """Which labels the student learns from.

    At most `rows` of them, drawn by traffic to the power of `temper` (0: each alike, 1: as searched). Only labels with a
    calibrated confidence of `min_confidence`; queries alike from a Jaccard similarity of `near` on, with the same
    answer, count once. Rows that people verified come `verified_weight` times. `replay` names general instruction rows
    (a local file or a Hub dataset; JSON lines with messages, or prompt and completion) that are mixed in against
    forgetting, `replay_share` of them for each row of ours (e-Llama: 1.0; 0.1 is common practice).
    """

    rows: int | None = Field(None, ge=1)
    temper: float = Field(0.5, ge=0, le=1)
    min_confidence: float = Field(0.5, ge=0, le=1)
    near: float = Field(0.9, gt=0, le=1)
    verified_weight: int = Field(2, ge=1)
    replay: File | None = None
    replay_share: float = Field(0.1, gt=0, le=10)


class PretrainSettings(Section):
    """Continued pretraining of the base on catalogue titles and queries, before anything else (e-Llama). Off with 0 epochs.

    `replay`: general text (JSON lines or Parquet with a `text` column, or a Hub dataset), `replay_share` tokens of it
    for each of ours; `learning_rate`: a tenth of the rate that the base was made with. One text in twenty is held
    out and measures what was learnt and what forgotten.
    """

    epochs: int = Field(0, ge=0)
    replay: File | None = None
    replay_share: float = Field(1.0, ge=0, le=10)
    learning_rate: float = Field(3e-5, gt=0)
    batch: int = Field(16, ge=1)
    block: int = Field(512, ge=32)


class DpoSettings(Section):
    """A second step from people's corrections, preferred to what the teacher had said. Off with 0 epochs.

    `beta`: how near to the first step's student it stays (Rafailov et al. 2023); not run on fewer than `least_pairs`.
    """

    epochs: int = Field(0, ge=0)
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(5e-6, gt=0)
    batch: int = Field(16, ge=1)
    least_pairs: int = Field(50, ge=1)


class DistilSettings(Section):
    """On-policy distillation (Agarwal et al. 2024): the student writes, a teacher of the same tokenizer weighs each token.

    Off with 0 steps. `teacher` is a model that fits beside the student.
    """

    steps: int = Field(0, ge=0)
    teacher: str | None = None
    learning_rate: float = Field(1e-5, gt=0)
    batch: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.steps and not self.teacher:
            raise ValueError("steps is above 0 without a teacher; name a model that shares the student's tokenizer")
        return self


class RoundSettings(Section):
    """Rounds, as Llama 3 does: train, sample the student, keep the best of its answers, train again.

    At most `most` trainings (1: no second one), ended as soon as F1 on the dev split gains less than `least_gain`.
    """

    most: int = Field(1, ge=1, le=10)
    samples: int = Field(8, ge=2, le=64)
    temperature: float = Field(0.7, gt=0, le=2)
    queries: int = Field(2000, ge=1)
    least_gain: float = Field(0.002, ge=0, le=1)


class StudentSettings(Section):
    """The student's base and its LoRA recipe; `server` becomes `vllm serve` options.

    `accelerate`: a configuration file of `accelerate config`; training then runs under `accelerate launch`, over all its
    processes. `quantised` variants are measured beside the student and shipped where the gate lets them; int4
    needs a GPU or AVX-512, by vLLM's kernels. `keep` students beside those that releases name stay on disk.
    """

    base: Model
    revision: str | None = None
    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    learning_rate: float = Field(2e-4, gt=0)
    epochs: int = Field(2, ge=1)
    batch: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    max_length: int = Field(512, ge=32)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantise_base: bool = False
    gradient_checkpointing: bool = True
    packing: bool = False
    share_prefix: bool = False
    order: Order = "shuffled"
    accelerate: File | None = None
    max_tokens: int = Field(64, ge=8)
    start_seconds: float = Field(600, gt=0)
    quantised: list[Literal["fp8", "int8", "int4"]] = Field([])
    keep: int = Field(5, ge=0)
    server: dict[str, str | int | float | bool] = Field({})
    data: DataSettings = DataSettings()
    pretrain: PretrainSettings = PretrainSettings()
    dpo: DpoSettings = DpoSettings()
    distil: DistilSettings = DistilSettings()
    rounds: RoundSettings = RoundSettings()

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.share_prefix and self.packing:
            raise ValueError("share_prefix and packing both lay rows out; wanted one of them")
        if self.packing and self.order == "easy_to_hard":
            raise ValueError("packing sorts rows by length; order = easy_to_hard needs packing = false")
        return self


class EvaluateSettings(Section):
    """What is measured beside quality: latency at each of `concurrency` callers, by `requests` (or one a caller, where these
    are more); `general`: a file of general instruction rows with their answers, asked of the base and of the student
    (what it forgot).
    """

    concurrency: list[Annotated[int, Field(ge=1)]] = Field([1, 8, 64], min_length=1)
    requests: int = Field(200, ge=1)
    general: File | None = None


class GateSettings(Section):
    """What a night must reach to publish.

    `delta`: how much F1 the student may lose against the one being served, at most, by the interval of the difference;
    `latency_ms`: the p99 allowed at `latency_concurrency` callers; `general_loss`: the share of general ability that
    training may cost; `recall_drop`: the recall a quantised variant may lose and still be shipped.
    """

    teacher_precision: float = Field(0.85, ge=0, le=1)
    teacher_f1: float = Field(0.85, ge=0, le=1)
    student_ratio: float = Field(0.9, ge=0, le=1)
    max_invalid: float = Field(0.001, ge=0, le=1)
    delta: float = Field(0.02, ge=0, le=1)
    latency_ms: float | None = Field(None, gt=0)
    latency_concurrency: int = Field(1, ge=1)
    general_loss: float = Field(0.01, ge=0, le=1)
    recall_drop: float = Field(0.005, ge=0, le=1)
