"""What `attach` returns: one adapter on one model."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from ctxpeft.errors import HostError, one_line
from ctxpeft.hosts.build import Built, state_of
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.count import count_module
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.freeze import freeze, release
from ctxpeft.hosts.root import Root
from ctxpeft.hosts.seam import Seam
from ctxpeft.spec.variant import Variant


class BaseHandle(ABC):
    """An attached adapter: its parameters, its switch, its files, its way out."""

    def __init__(self, model: nn.Module, variant: Variant, name: str) -> None:
        self.model, self.variant, self.name = model, variant, name
        self.attached = True

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapter's parameters under names that do not depend on the model class: `layers.3.0.memory.matrix`."""

    @abstractmethod
    def num_parameters(self, kind: Literal["trainable", "deployed"] = "trainable") -> int:
        """How many parameters are trained, or remain after reparameterisation."""

    @abstractmethod
    def _remove(self) -> None:
        """Take the adapter's modules out of the model."""

    @abstractmethod
    def disabled(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block this adapter does nothing; if it is the only one, the model is the base, bit for bit."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's parameters, to hand to an optimizer."""
        return (parameter for _, parameter in self.named_parameters())

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What a torch optimizer takes: the parameters to train, in a group for every `learning_rate_ratio`.

        The group of ratio 1, where there is one, comes first. `learning_rate` is that of the run.
        """
        by_ratio: dict[float, list[nn.Parameter]] = {1.0: []}
        for parameter, ratio in self.learning_rate_ratios():
            if parameter.requires_grad:
                by_ratio.setdefault(ratio, []).append(parameter)
        return [{"params": p, "lr": learning_rate * ratio} for ratio, p in by_ratio.items() if p]

    def learning_rate_ratios(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Every parameter with the `learning_rate_ratio` of its module."""
        return ((parameter, 1.0) for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The training state, reparameterisation included."""
        return {key: parameter.detach() for key, parameter in self.named_parameters()}

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write variant.yaml, adapter.safetensors and README.md (a model card) into a folder, atomically."""
        from ctxpeft.adapters.save import save

        save(self, directory)

    @abstractmethod
    def export(self, directory: str | os.PathLike[str], format: str = "peft") -> None:
        """Write a folder from which `peft.PeftModel.from_pretrained(base, directory)` computes the same.

        Raises AdapterError, naming the reason, where PEFT cannot say what the adapter computes.
        """

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save` writes to a repository of the Hugging Face Hub, created where there is none.

        options: private, token, revision, commit_message, create_pr, as huggingface_hub means them. Returns the
        commit's URL. Raises AdapterError where the Hub refuses or cannot be reached.
        """
        from ctxpeft.adapters.hub import push

        return push(self, repo_id, **options)

    def hotswap(self, directory_or_hub_id: str | os.PathLike[str]) -> None:
        """Take the values of a saved adapter of the same spec, in place: nothing is attached, compiled or moved anew.

        Raises AdapterError for another spec or other shapes; the adapter is then as it was.
        """
        from ctxpeft.adapters.load import refill

        refill(self, directory_or_hub_id)

    def detach(self) -> None:
        """Remove the adapter; after the last one the model is the base again, bit for bit. Raises HostError if done."""
        if not self.attached:
            raise HostError(f"the adapter '{self.name}' is detached already")
        controller = controller_of(self.model)
        self._remove()
        self.attached = False
        del controller.handles[self.name]
        controller.last_rows = None
        controller.active = tuple(n for n in controller.active if n != self.name)
        if controller.handles:
            freeze(self.model)
        else:
            release(self.model)

    def summary(self) -> str:
        """One paragraph: name, variant, parameters, where they are."""
        trainable, deployed = self.num_parameters(), self.num_parameters("deployed")
        share = f"{trainable:,} trainable parameters ({self._share(trainable)})"
        folded = "" if deployed == trainable else f", {deployed:,} once deployed"
        return one_line(f"{self.name}: {self.variant.title or self.variant.name}: {share}{folded}")

    def __repr__(self) -> str:
        return (
            f"<ctxpeft adapter {self.summary()}>"
            if self.attached
            else f"<detached ctxpeft adapter {self.name}>"
        )

    def _repr_html_(self) -> str:
        from ctxpeft.html import facts
        from ctxpeft.spec.equation import variant_equations

        if not self.attached:
            return facts(repr(self).strip("<>"), [])
        title = one_line(self.variant.title or self.variant.name)
        rows = [("adapter", self.name), ("equation", variant_equations(self.variant))]
        trainable, deployed = self.num_parameters(), self.num_parameters("deployed")
        rows += [("trainable", f"{trainable:,} parameters ({self._share(trainable)})")]
        rows += [("deployed", f"{deployed:,} parameters" if deployed != trainable else "")]
        return facts(title, rows)

    def _share(self, count: int) -> str:
        base = sum(p.numel() for p, _ in self.model.__dict__["_ctxpeft_base"]["trainable"])
        return f"{count / base:.2%} of the base's {base:,}"


class Handle(BaseHandle):
    """A variant of the algebra, attached."""

    def __init__(
        self,
        model: nn.Module,
        variant: Variant,
        name: str,
        built: list[Built],
        seams: list[Seam],
        root: Root,
        layers: list[Layer],
    ) -> None:
        super().__init__(model, variant, name)
        self.built, self.seams, self.root, self.layers = built, seams, root, layers

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for prefix, _, _, module in self.built:
            for key, parameter in module.named_parameters():
                yield f"{prefix}.{key}", parameter

    def learning_rate_ratios(self) -> Iterator[tuple[nn.Parameter, float]]:
        for built in self.built:
            ratio = self.variant.modules[built.place].learning_rate_ratio
            yield from ((parameter, ratio) for parameter in built.module.parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Saved buffers (random projections), under names like those of the parameters."""
        trained = {key for key, _ in self.named_parameters()}
        return ((key, tensor) for key, tensor in self.state_dict().items() if key not in trained)

    def state_dict(self) -> dict[str, Tensor]:
        return state_of(self.built)

    def num_parameters(self, kind: Literal["trainable", "deployed"] = "trainable") -> int:
        return sum(count_module(b.module, kind) for b in self.built)

    def export(self, directory: str | os.PathLike[str], format: str = "peft") -> None:
        from ctxpeft.adapters.export import export

        export(self, directory, format)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        with controller_of(self.model).silence(self.name):
            yield

    def gates(self) -> dict[str, Any]:
        """The parameters of all gates by name, for reading: how far each memory is open."""
        return {key: p.detach() for key, p in self.named_parameters() if ".gate." in key}

    def _remove(self) -> None:
        for seam in self.seams:
            seam.remove_adapter(self.name)
        self.root.remove_adapter(self.name)
