"""`TaskSpec`: what a task is, as a YAML file, a dictionary or command-line flags say it."""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ctxpeft.tasks._columns import Kind, Role

DEFAULT_TEMPLATES: dict[Kind, str] = {
    "classification": "{text}\nLabel:",
    "completion": "{prompt}\n",
    "language_modelling": "{text}",
    "multiple_choice": "Question: {prompt}\nAnswer:",
}
TextMetric = Literal["bleu", "chrf", "rouge_l", "f1", "exact_match"]
DECOMPOSABLE = ("rouge_l", "f1", "exact_match")  # means over examples, as a paired comparison needs

Files = list[str]


class Columns(BaseModel):
    """Column names; those left out are recognised (`category` as label, and so on)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    label: str | None = None
    prompt: str | None = None
    completion: str | None = None
    choices: str | None = None
    answer: str | None = None
    references: str | None = Field(
        None, description="A list that stands for the completion in rows where it is not empty."
    )

    def chosen(self) -> dict[Role, str | None]:
        """The names given, by role."""
        return {role: getattr(self, role) for role in get_args(Role)}


class Hub(BaseModel):
    """A dataset of the Hugging Face hub, or a folder that `datasets` can load (extra `ctxpeft[data]`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    config: str | None = None
    revision: str | None = None
    rename: dict[str, str] = Field(
        default_factory=dict, description="Columns there by the names of this task: {label_text: label}."
    )
    values: dict[str, str] = Field(
        default_factory=dict, description="Labels there by the names of this task: {ABBR: abbreviation}."
    )
    train: str = "train"
    validation: str | None = None
    test: str | None = "test"


class TaskSpec(BaseModel):
    """One task. `load_task` makes it from a name, a file or flags; `build_task` reads its data.

    The prompt is `template` filled from the columns of a row; the label or completion follows it, after a
    space where the template does not end in white space. Lengths are in tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "task"
    title: str | None = None
    source: str | None = None
    licence: str | None = None
    kind: Kind | None = Field(None, description="Inferred from the columns when left out.")
    train: Files = Field(default_factory=list)
    validation: Files = Field(default_factory=list, description="Split from the training data when left out.")
    test: Files = Field(default_factory=list)
    ood: Files = Field(default_factory=list, description="Out-of-distribution test data.")
    hub: Hub | None = None
    head: Literal["label", "classifier"] = Field(
        "label",
        description="How a class is told: by writing its words, or by a classification head trained with the adapter.",
    )
    pooling: Literal["model", "mean"] = Field(
        "model",
        description="What a classification head reads: what the model's own reads, or the mean of the last hidden "
        "states, for which sentence encoders are trained.",
    )
    columns: Columns = Columns()
    template: str | None = Field(None, description="`\\n` and `\\t` stand for a new line and a tab.")
    labels: list[str] | None = Field(
        None, description="The labels; those of the training data when left out."
    )
    label_names: list[str] | None = Field(None, description="Names of labels that the data number from 0.")
    skip_other_labels: bool = Field(
        False, description="Leave out rows whose label is not among `labels`, such as those with several."
    )
    label_words: dict[str, str] = Field(default_factory=dict, description="What is written for each label.")
    separator: str | None = Field(
        None, description="What joins a template column that is a list; a list is an error when left out."
    )
    unseen: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Rows with one of these values in the column are never trained on: they are the ood data.",
    )
    metrics: list[TextMetric] = Field(
        default_factory=list,
        description="Of greedy text against all references of the same prompt; the first of rouge_l, f1 and "
        "exact_match is the main metric.",
    )
    stop: str | None = Field(
        None, description="What ends an answer, in training and generation, beside the end-of-text token."
    )
    new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The most tokens generated; those of the longest answer when left out."
    )
    max_length: Annotated[int, Field(ge=8)] = 256
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    validation_limit: Annotated[int, Field(ge=1)] | None = 500
    test_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    test_limit: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = Field(None, description="Training examples kept.")
    per_class: Annotated[int, Field(ge=1)] | None = Field(None, description="Training examples kept a class.")
    draw: int | Literal["seed"] = Field(
        0,
        description="Seed of the subsample; `seed`: that of the run, so that every seed draws its own examples.",
    )
    generate_limit: Annotated[int, Field(ge=0)] = Field(32, description="Examples checked by generation.")

    @field_validator("train", "validation", "test", "ood", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("labels", "label_names", mode="before")
    @classmethod
    def _text_labels(cls, value: Any) -> Any:
        return [str(v) for v in value] if isinstance(value, list) else value

    @field_validator("label_words", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("template")
    @classmethod
    def _well_formed(cls, value: str | None) -> str | None:
        if value is None:
            return None
        for target in ("{label}", "{completion}"):
            value = value.removesuffix(target)
        value = value.replace("\\n", "\n").replace("\\t", "\t")
        names = template_fields(value)
        if not names:
            raise ValueError("the template names no column: expected for example 'Question: {text} Answer:'")
        if "label" in names or "completion" in names:
            raise ValueError("the template shows the answer to the model: it may only come last")
        return value

    @property
    def primary(self) -> TextMetric | None:
        """The metric of generated text that is the main one, if there is one."""
        return next((metric for metric in self.metrics if metric in DECOMPOSABLE), None)

    @model_validator(mode="after")
    def _can_be_compared(self) -> TaskSpec:
        if self.metrics and self.primary is None:
            raise ValueError(f"metrics needs one of {', '.join(DECOMPOSABLE)}, by which runs are compared")
        if self.head == "classifier" and (self.kind or "classification") != "classification":
            raise ValueError(f"a classification head has no use for kind {self.kind}")
        if self.skip_other_labels and not (self.labels or self.label_names):
            raise ValueError("skip_other_labels needs labels, or label_names")
        return self

    @model_validator(mode="after")
    def _has_data(self) -> TaskSpec:
        if not self.train and not self.test and self.hub is None:
            raise ValueError("no data: give train (or --data FILE), test, or hub")
        if self.hub and (self.train or self.validation or self.test or self.ood):
            raise ValueError("hub and files cannot both be given")
        return self


def template_fields(template: str) -> list[str]:
    """The column names in braces, in order.

    Raises:
        ValueError: an unbalanced brace, a format specification or a nameless field.
    """
    names: list[str] = []
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name.replace("_", "a").replace("-", "a").isalnum() or spec or conversion:
            raise ValueError(
                f"'{{{name}}}' in the template is not a column name; write {{{{ }}}} for a brace"
            )
        names.append(name)
    return names
