"""The training loop, `Trainer.fit`. It knows the contract of a method and the name of none.

The trainer owns device, precision, optimizers and their schedules, records, checkpoints and resuming. A step is a pure
function of (weights, optimizer, step number): data and randomness are looked up by position, so resuming needs nothing
else. Beside it: what lies on disk (`rizbin.training.state`) and the output of a run (`rizbin.training.logbook`).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rizbin.core import checkpoint, parallel, random
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.runs import RunFolder
from rizbin.core.signals import graceful
from rizbin.data.loader import MOST_REFUSED_SHARE, Loader
from rizbin.data.loader import LoadedBatch as RawBatch
from rizbin.data.sample import Source
from rizbin.data.views import normalize
from rizbin.training.logbook import Callback, Diagnostics, Logbook
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.optimizers import decay_groups, make_optimizer
from rizbin.training.schedules import growth, warmup_cosine
from rizbin.training.settings import TrainerSettings
from rizbin.training.sharding import compile_blocks, is_sharded, shard, split_sharded, total_norm
from rizbin.training.state import FAILURES, load_method, read_failure, resume, save_failure, state_of, sweep
from rizbin.training.trackers import TrackerName, Trackers

__all__ = [
    "FAILURES",
    "Callback",
    "Diagnostics",
    "NotFinite",
    "Outcome",
    "Stopped",
    "Trainer",
    "load_method",
    "read_failure",
    "sweep",
]


class NotFinite(RizbinError):
    """The loss or a gradient is infinite or not a number; the update was not made."""


class Stopped(RizbinError):
    """The run was asked to stop; it saved and can go on."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    """Updates made in all."""
    seconds: float
    """Seconds of this call, without what came before a resume."""


class Trainer:
    """Runs a method over a source for a number of steps, in a run folder."""

    Settings = TrainerSettings

    def __init__(
        self,
        settings: Settings,
        *,
        batch: int,
        steps: int,
        checkpoint_every: int,
        seed: int,
        tolerate: float = MOST_REFUSED_SHARE,
    ) -> None:
        """tolerate: share of the images, 0 to 1, that may be unusable before the run stops."""
        self.settings, self.tolerate = settings, tolerate
        self.batch, self.steps, self.checkpoint_every, self.seed = batch, steps, checkpoint_every, seed
        self.device = parallel.device()

    def fit(
        self,
        method: Method,
        source: Source,
        run: RunFolder,
        *,
        quiet: bool = False,
        until: int | None = None,
        watch: Callback | None = None,
        watch_every: int = 0,
        costs: Sequence[float] = (),
        track: Sequence[TrackerName] = (),
    ) -> Outcome:
        """Trains from the run's last checkpoint (or from the start) to the last step, or to step `until`.

        watch: called every `watch_every` steps on the main process; its numbers are logged, its sentences said.
        costs: what a step costs at places spread evenly over the run (`place_costs`), for the time left; empty: the
            same everywhere.
        track: trackers that are given what metrics.jsonl is given, on the main process.
        Raises Stopped after a signal (saved), NotFinite before an update that would spoil the weights (replay data
        saved).
        """
        begin = time.perf_counter()
        optimizers = self._prepare(method)
        start = resume(method, optimizers, run)
        last = self.steps if until is None else min(until, self.steps)
        loader = self._loader(method, source, start, last)
        shares = [(self.steps / len(costs), cost) for cost in costs]
        quiet = quiet or not parallel.is_main()
        names = track if parallel.is_main() else ()
        with (
            graceful() as stop,
            Bar(last, run.path.name, start=start, quiet=quiet, costs=shares) as bar,
            Trackers(names, run, start, bar.warn) as trackers,
        ):
            log = Logbook(run, bar, begin=begin, batch=self.batch, trackers=trackers)
            saved = start
            for step, raw in enumerate(loader, start):
                records = self.step(method, optimizers, self._on_device(raw), step, run, raw.positions)
                done = step + 1
                log.refused(raw.refused)
                due = watch is not None and watch_every > 0 and (done % watch_every == 0 or done == self.steps)
                if due or done % self.settings.log_every == 0 or done == last:
                    log.write(done, records, method, watch if due else None)
                else:
                    bar.update(done)
                stopping = parallel.any_true(stop.requested)
                if stopping or done == last or (self.checkpoint_every and done % self.checkpoint_every == 0):
                    saved = done if self._save(method, optimizers, run, done, bar) else saved
                    self._check_end(done, last, saved, stopping)
        return Outcome(last, time.perf_counter() - begin)

    def _prepare(self, method: Method) -> dict[str, torch.optim.Optimizer]:
        """Brings the method to its device, sharded and compiled as the settings say; returns its optimizers."""
        method.to(self.device).train()
        if self.settings.sharding == "fsdp":
            shard(method)
        if self.settings.compile:
            compile_blocks(method)
        return self.optimizers(method)

    def _check_end(self, done: int, last: int, saved: int, stopping: bool) -> None:
        """After a save: raises Stopped where the run was asked to stop, RizbinError where its end is not on disk."""
        if done == last and saved != done:
            raise RizbinError(
                f"All {last} steps are made, but the last checkpoint could not be written (the newest is of step "
                f"{saved}); free some space and give the same command again."
            )
        if not stopping or done == last:
            return
        if saved != done:
            raise RizbinError(
                f"Asked to stop at step {done}, but the checkpoint could not be written; the newest is of step {saved}."
            )
        raise Stopped(f"Stopped and saved after step {done} of {self.steps}; the same command goes on from there.")

    def time_steps(self, method: Method, source: Source, *, warm: int, places: int, repeats: int = 2) -> float:
        """Mean seconds of a step, data included, over `places` of the run; see `place_costs`."""
        taken = self.place_costs(method, source, warm=warm, places=places, repeats=repeats)
        return sum(taken) / len(taken)

    def place_costs(self, method: Method, source: Source, *, warm: int, places: int, repeats: int = 2) -> list[float]:
        """Seconds of a step, data included, at `places` spread evenly over the run, after `warm` ones.

        Spread, because a method may do more later on; the faster of `repeats` at each place counts, so that neither the
        machine's hiccups nor a costly last part of the run are taken for the other. Spoils `method`'s weights.
        """
        method.to(self.device).train()
        if self.settings.compile:
            compile_blocks(method)
        optimizers = self.optimizers(method)
        seconds: list[list[float]] = [[] for _ in range(places)]
        begin = time.perf_counter()
        for count, raw in enumerate(self._loader(method, source, 0, warm + places * repeats)):
            place = max(count - warm, 0) % places
            records = self.step(method, optimizers, self._on_device(raw), int((place + 0.5) * self.steps / places))
            float(records["loss"])  # waits for a GPU
            if count >= warm:
                seconds[place].append(time.perf_counter() - begin)
            begin = time.perf_counter()
        return [min(taken) for taken in seconds]

    def optimizers(self, method: Method) -> dict[str, torch.optim.Optimizer]:
        """One for each of the method's groups of parts; in each, tensors that decay before those that do not."""
        settings, made = self.settings, {}
        shares = {id(parameter): share for part, share in method.rates() for parameter in part.parameters()}
        for name, parts in method.optimizers().items():
            groups = []
            for parameters, decay in zip(decay_groups(parts), (settings.weight_decay, 0.0), strict=True):
                for share in sorted({shares.get(id(parameter), 1.0) for parameter in parameters}, reverse=True):
                    some = [parameter for parameter in parameters if shares.get(id(parameter), 1.0) == share]
                    groups += [
                        {"params": alike, "weight_decay": decay, "share": share} for alike in split_sharded(some)
                    ]
            made[name] = make_optimizer(
                settings.optimizer,
                groups,
                learning_rate=settings.learning_rate,
                momentum=settings.momentum,
                betas=(settings.beta1, settings.beta2),
                epsilon=settings.epsilon,
            )
        return made

    def step(
        self,
        method: Method,
        optimizers: dict[str, torch.optim.Optimizer],
        batch: Batch,
        step: int,
        run: RunFolder | None = None,
        positions: list[int] | None = None,
    ) -> dict[str, Tensor | float]:
        """Makes every update that the method wants for one batch; returns what it recorded, averaged over processes."""
        settings = self.settings
        rate = warmup_cosine(
            step,
            self.steps,
            peak=settings.learning_rate,
            floor=settings.final_learning_rate,
            warmup=settings.warmup,
            start=settings.warmup_start,
        )
        decay = settings.weight_decay * growth(step, self.steps, settings.weight_decay_growth)
        records: dict[str, Tensor | float] = {"learning_rate": rate}
        for update in self.updates(method, batch, step):
            optimizer = optimizers[update.by]
            for group in optimizer.param_groups:
                group["lr"] = rate * update.rate * group["share"]
                if group["weight_decay"]:
                    group["weight_decay"] = decay
            norm = self._update(update, optimizer, step, method, run, positions)
            prefix = "" if update.by == "main" else f"{update.by}/"
            records[f"{prefix}loss"] = update.loss.detach()
            records[f"{prefix}gradient_norm"] = norm
            records |= {
                f"{prefix}{name}": value.detach() if isinstance(value, Tensor) else value
                for name, value in update.records.items()
            }
        if parallel.world_size() > 1:
            records = {
                name: parallel.mean(value) if isinstance(value, Tensor) else value for name, value in records.items()
            }
        return records

    def updates(self, method: Method, batch: Batch, step: int) -> Iterator[Minimize]:
        """The updates that the method requests for one batch, with the randomness of that step."""
        # Dropped paths and their like follow from the step, not from what ran before it.
        torch.manual_seed(random.key(self.seed, "step", step, parallel.rank()))
        updates = method.step(batch, Progress(step, self.steps, self.seed))
        while (update := self._next(updates)) is not None:
            yield update

    def batch_of(self, method: Method, source: Source, step: int) -> tuple[RawBatch, Batch]:
        """The batch of a step, as it comes from the source and as the method gets it."""
        raw = next(iter(self._loader(method, source, step, step + 1)))
        return raw, self._on_device(raw)

    def _next(self, updates: Iterator[Minimize]) -> Minimize | None:
        """The method's next update. Autocast covers the method's own code only: backward and update run outside it."""
        bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
            return next(updates, None)

    def _update(
        self,
        update: Minimize,
        optimizer: torch.optim.Optimizer,
        step: int,
        method: Method,
        run: RunFolder | None,
        positions: list[int] | None,
    ) -> Tensor:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = self._gradient(update.loss, optimizer, parameters, keep=update.bounded is not None)
        if update.bounded is not None:
            first = [parameter.grad for parameter in parameters]
            second = self._gradient(update.bounded, optimizer, parameters, keep=False)
            share = float((update.bound * norm / second.clamp(min=1e-12)).clamp(max=1.0))
            for parameter, gradient in zip(parameters, first, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient
                elif gradient is not None:
                    parameter.grad.mul_(share).add_(gradient)
                else:
                    parameter.grad.mul_(share)
            norm = total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(update.loss.detach()))
        if parallel.any_true(not finite):
            raise NotFinite(self._failure(method, optimizer, step, update, run, positions))
        if self.settings.clip:
            for alike in split_sharded(parameters):
                nn.utils.clip_grads_with_norm_(alike, self.settings.clip, norm)
        optimizer.step()
        return norm

    def _gradient(
        self, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], *, keep: bool
    ) -> Tensor:
        """Puts the gradient of `loss`, averaged over processes, into the parameters; returns its norm."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward(retain_graph=keep)
        parallel.average_gradients([parameter for parameter in parameters if not is_sharded(parameter)])
        return total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])

    def _failure(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        step: int,
        update: Minimize,
        run: RunFolder | None,
        positions: list[int] | None,
    ) -> str:
        """Keeps what a replay of the bad step needs, and says what happened."""
        records = {
            name: value.detach() if isinstance(value, Tensor) else value for name, value in update.records.items()
        }
        parts = ", ".join(
            f"{name} {float(value):.4g}" for name, value in {"loss": update.loss.detach(), **records}.items()
        )
        where = ""
        if run is not None:
            facts = {"positions": positions, "seed": self.seed, "step": step, "parts": parts}
            folder = save_failure(method, {update.by: optimizer}, run, step, facts)
            where = f"; weights, batch and randomness of the step are kept in {folder} (rizbin replay makes it again)"
        return (
            f"Step {step + 1} gave a loss or gradient that is not finite ({parts}), so the update was not made{where}; "
            f"lower the learning rate, clip the gradient or use fp32."
        )

    def _loader(self, method: Method, source: Source, start: int, last: int) -> Loader:
        return Loader(
            source,
            method.views,
            method.tokenizer,
            seed=self.seed,
            batch=self.batch,
            rank=parallel.rank(),
            world=parallel.world_size(),
            workers=self.settings.workers,
            start_step=start,
            steps=last,
            phrases=method.most_phrases,
            tolerate=self.tolerate,
        )

    def _on_device(self, raw: RawBatch) -> Batch:
        def to(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        return Batch(
            views=[normalize(to(view)) for view in raw.views],
            crops=to(raw.crops),
            flips=to(raw.flips),
            texts=None if raw.texts is None else to(raw.texts),
            phrases=None if raw.phrases is None else to(raw.phrases),
            objects=raw.objects,
        )

    def _save(
        self, method: Method, optimizers: dict[str, torch.optim.Optimizer], run: RunFolder, step: int, bar: Bar
    ) -> bool:
        tensors, state = state_of(method, optimizers)
        failed = ""
        if parallel.is_main():
            try:
                checkpoint.save(run.checkpoints, step, tensors, state, keep=self.settings.keep_checkpoints)
            except checkpoint.SaveFailed as error:
                failed = str(error)
                bar.warn(f"{failed} Training goes on and the next save is tried as planned.")
        return not parallel.any_true(bool(failed))
