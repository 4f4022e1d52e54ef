"""One distillation run as a resumable state machine: `step(plan)` does one round."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssdkd_env.distillation import priority
from ssdkd_env.distillation.augmentation import Normalize, to_uint8
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.report import DIFFICULTY_BINS, QUANTILES, RoundReport
from ssdkd_env.distillation.student import StudentTrainer
from ssdkd_env.errors import InvalidInputError

if TYPE_CHECKING:
    from ssdkd_env.tasks import Task

#: Images a forward pass when the whole buffer is looked at.
FORWARD_CHUNK = 1024


class DistillationRun:
    """SSD-KD (or another method of the same engine) from an untrained student to the end of the budget.

    All randomness comes from generators of the run's own, all seeded from `seed`; PyTorch's global generators are
    put back as they were after every call. On the CPU two runs of one seed are bit-identical.

    Args:
        task: teacher, networks, sizes and budget.
        method: the inversion's and the loss's settings.
        seed: of everything in this run.
        device: where it all happens.
    """

    def __init__(self, task: Task, method: Method, seed: int, device: torch.device | str = "cpu") -> None:
        self.task = task
        self.method = method
        self.seed = seed
        self.device = torch.device(device)
        spec, budget = task.spec, task.spec.budget
        seeds = torch.randint(2**62, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
        self._random = {
            name: torch.Generator(self.device).manual_seed(stream_seed)
            for name, stream_seed in zip(("inversion", "sampling", "augmentation"), seeds[:3], strict=True)
        }
        # Layers of the user's own, such as dropout, draw from the global generators: give them a stream too.
        self._random["layers"] = torch.Generator().manual_seed(seeds[3])
        self.teacher = task.teacher_on(self.device)
        self.student = task.build_student(seeds[4]).to(self.device)
        generator = task.build_generator(seeds[5]).to(self.device)
        self._normalize = Normalize(spec.mean, spec.std, self.device)
        self.inversion = Inversion(
            method,
            self.teacher,
            generator,
            num_classes=spec.num_classes,
            latent_dim=spec.latent_dim,
            batch_size=budget.candidates,
            steps=budget.inversion_steps,
            normalize=self._normalize,
            padding=spec.padding,
            flip=spec.flip,
            random=self._random["inversion"],
        )
        self._trainer = StudentTrainer(
            self.student,
            self.teacher,
            spec.student,
            rounds=budget.rounds,
            temperature=method.temperature,
            normalize=self._normalize,
            padding=spec.padding,
            flip=spec.flip,
            random=self._random["augmentation"],
        )
        self.buffer = ReplayBuffer(budget.buffer_capacity, spec.image_shape, spec.num_classes, self.device)
        self.round = 0
        self.warm = False
        self.synthesized = 0

    @property
    def done(self) -> bool:
        """Whether the budget is used up."""
        return self.round >= self.task.spec.budget.rounds

    def warm_up(self) -> RoundReport:
        """Fill the buffer before the student learns: `budget.warmup_rounds` batches without adversary.

        The newest images stay, because the generator is still bad when it makes the first. Called once, by
        `step` if not before.
        """
        if self.warm:
            raise RuntimeError("warm_up() was already called on this run; make a new DistillationRun to start over")
        with self._private_global_random():
            clock = _Clock(self.device)
            for index in range(self.task.spec.budget.warmup_rounds):
                candidates, losses = self._synthesize(student=None, born=index - self.task.spec.budget.warmup_rounds)
                age = torch.cat([self.buffer.residents.born, candidates.born]).double()
                self.buffer.update(candidates, age, most_replaced=self.buffer.capacity)
            self.warm = True
            seconds_synthesis = clock.lap()
            self._refresh()
            uniform = torch.full((len(self.buffer),), 1 / len(self.buffer), dtype=torch.float64, device=self.device)
            zero = torch.zeros((), device=self.device)
            return self._report(candidates, losses, zero, zero, uniform, 0.0, seconds_synthesis, 0.0)

    def step(self, plan: SamplingPlan) -> RoundReport:
        """Do one round: synthesise, update the buffer, distil, refresh the priorities.

        Raises:
            RuntimeError: when the budget is used up.
            InvalidInputError: when `plan.logits` has the wrong length.
        """
        if not self.warm:
            self.warm_up()
        if self.done:
            raise RuntimeError(f"the budget of {self.task.spec.budget.rounds} rounds is used up; make a new run")
        self._check_logits(plan.logits)
        with self._private_global_random():
            clock = _Clock(self.device)
            candidates, losses = self._synthesize(self.student, born=self.round)
            replaced = self._update_buffer(candidates, plan)
            seconds_synthesis = clock.lap()
            probabilities = priority.sampling_probabilities(self.buffer.residents.log_weight)
            loss = self._distill(probabilities, plan.importance_exponent)
            self._refresh()
            learning_rate = self._trainer.learning_rate(self.round)
            self.round += 1
            return self._report(
                candidates, losses, loss, replaced, probabilities, learning_rate, seconds_synthesis, clock.lap()
            )

    def _check_logits(self, logits: Tensor | None) -> None:
        """Refuse logits before anything of the run has moved."""
        if logits is None:
            return
        expected = (len(self.buffer) + self.task.spec.budget.candidates,)
        if tuple(logits.shape) != expected:
            raise InvalidInputError(
                f"SamplingPlan.logits has shape {tuple(logits.shape)}, expected {expected}: one log-weight for "
                "each resident of the buffer, then one for each candidate"
            )
        if not bool(logits.isfinite().all()):
            raise InvalidInputError("SamplingPlan.logits holds NaN or infinite values: expected finite log-weights")

    def _synthesize(self, student: torch.nn.Module | None, born: int) -> tuple[Entries, Tensor]:
        images, losses = self.inversion.synthesize(student, self.buffer.mean_class_share())
        self.synthesized += len(images)
        stored = to_uint8(images)
        teacher_logits, student_logits = self.logits(stored)
        count = len(stored)
        entries = Entries(
            images=stored,
            class_share=priority.class_share(teacher_logits),
            confidence=priority.confidence(teacher_logits),
            discrepancy=priority.discrepancy(teacher_logits, student_logits),
            importance_weight=torch.ones(count, device=self.device),
            log_weight=torch.zeros(count, device=self.device),
            born=torch.full((count,), born, dtype=torch.int64, device=self.device),
        )
        self._candidate_agreement = priority.agreement(teacher_logits, student_logits).mean()
        return entries, losses

    def _update_buffer(self, candidates: Entries, plan: SamplingPlan) -> Tensor:
        """Weigh buffer ∪ candidates, then draw without replacement who is in the buffer (Gumbel top-k)."""
        residents = self.buffer.residents
        residents.log_weight.copy_(self._log_weights(residents, plan))
        candidates.log_weight.copy_(self._log_weights(candidates, plan))
        if plan.logits is not None:
            logits = plan.logits.detach()
            residents.log_weight.copy_(logits[: len(residents)])
            candidates.log_weight.copy_(logits[len(residents) :])
        log_weights = torch.cat([residents.log_weight, candidates.log_weight]).double()
        keys = log_weights + priority.gumbel(len(log_weights), self._random["sampling"], self.device)
        # The hair keeps 0.29 · 100 at 29.
        most_replaced = math.floor(plan.replaced_share * self.buffer.capacity + 1e-9)
        return self.buffer.update(candidates, keys, most_replaced)

    def _log_weights(self, entries: Entries, plan: SamplingPlan) -> Tensor:
        """Log P(x) of the plan, unnormalised, (N,)."""
        return priority.log_sampling_weights(
            priority.priority(entries.importance_weight, entries.discrepancy),
            priority.diversity(entries.class_share, self.buffer.mean_class_share()),
            priority.difficulty(entries.confidence, gamma=1.0),
            plan.discrepancy_exponent,
            plan.diversity_exponent,
            plan.difficulty_exponent,
        )

    def _distill(self, probabilities: Tensor, importance_exponent: float) -> Tensor:
        """Train the student on draws ∝ P with importance weights; returns the mean loss, a scalar tensor."""
        budget = self.task.spec.budget
        residents = self.buffer.residents
        residents.importance_weight.copy_(priority.importance_weights(probabilities, importance_exponent))
        draws = priority.draw_with_replacement(
            probabilities, budget.student_steps * budget.batch_size, self._random["sampling"]
        ).view(budget.student_steps, budget.batch_size)
        return self._trainer.train(residents.images, draws, residents.importance_weight, self.round)

    def _refresh(self) -> None:
        """Measure anew, with the student as it is now, what the priorities need to know of the whole buffer."""
        residents = self.buffer.residents
        teacher_logits, student_logits = self.logits(residents.images)
        residents.discrepancy.copy_(priority.discrepancy(teacher_logits, student_logits))
        self._buffer_agreement = priority.agreement(teacher_logits, student_logits).mean()

    @torch.no_grad()
    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of teacher and student for images (N, C, H, W) uint8, without augmentation."""
        pairs = []
        for chunk in images.split(FORWARD_CHUNK):
            inputs = self._normalize(chunk)
            pairs.append((self.teacher(inputs), self.student(inputs)))
        teacher_logits, student_logits = zip(*pairs, strict=True)
        return torch.cat(teacher_logits), torch.cat(student_logits)

    def _report(
        self,
        candidates: Entries,
        losses: Tensor,
        student_loss: Tensor,
        replaced: Tensor,
        probabilities: Tensor,
        learning_rate: float,
        seconds_synthesis: float,
        seconds_distillation: float,
    ) -> RoundReport:
        """Gather every statistic on the device and bring them over in one copy."""
        residents = self.buffer.residents
        hard = 1.0 - residents.confidence
        levels = torch.tensor(QUANTILES, device=self.device)
        counts = residents.class_share.sum(dim=0)
        share = counts / counts.sum()
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        bins = (hard * DIFFICULTY_BINS).long().clamp(0, DIFFICULTY_BINS - 1)
        groups: dict[str, Tensor] = {
            "losses": losses,
            "student_loss": student_loss,
            "candidate_discrepancy": candidates.discrepancy.mean(),
            "candidate_agreement": self._candidate_agreement,
            "candidate_confidence": candidates.confidence.mean(),
            "buffer_agreement": self._buffer_agreement,
            "class_counts": counts,
            "class_imbalance": 1.0 - entropy / math.log(max(len(counts), 2)),
            "difficulty_quantiles": hard.quantile(levels),
            "difficulty_histogram": torch.bincount(bins, minlength=DIFFICULTY_BINS),
            "discrepancy_quantiles": residents.discrepancy.quantile(levels),
            "mean_age": (self.round - residents.born).double().mean(),
            "effective_sample_size": priority.effective_sample_size(probabilities),
            "replaced": replaced,
        }
        flat = torch.cat([value.double().flatten() for value in groups.values()]).tolist()
        values: dict[str, Any] = {}
        for name, value in groups.items():
            taken, flat = flat[: value.numel()], flat[value.numel() :]
            values[name] = tuple(taken) if value.dim() else taken[0]
        bn_loss, one_hot_loss, adversarial_loss = values.pop("losses")
        finite = all(math.isfinite(values[name]) for name in ("student_loss", "candidate_discrepancy"))
        return RoundReport(
            round=self.round,
            diverged=not (finite and all(map(math.isfinite, values["discrepancy_quantiles"]))),
            learning_rate=learning_rate,
            bn_loss=bn_loss,
            one_hot_loss=one_hot_loss,
            adversarial_loss=adversarial_loss,
            buffer_fill=len(self.buffer) / self.buffer.capacity,
            replaced=int(values.pop("replaced")),
            synthesized=self.synthesized,
            seconds_synthesis=seconds_synthesis,
            seconds_distillation=seconds_distillation,
            **values,
        )

    @contextmanager
    def _private_global_random(self) -> Iterator[None]:
        """Lend this run's own stream to layers that draw from the global generators, and put those back after."""
        seed = int(torch.randint(2**62, (1,), generator=self._random["layers"]))
        on_cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_cuda else []):
            torch.default_generator.manual_seed(seed)
            if on_cuda:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(seed)
            yield

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, copied: `load_state_dict` of it continues bit-identically on the CPU."""
        return copy.deepcopy(
            {
                "round": self.round,
                "warm": self.warm,
                "synthesized": self.synthesized,
                "inversion": self.inversion.state_dict(),
                "trainer": self._trainer.state_dict(),
                "buffer": self.buffer.state_dict(),
                "random": {name: generator.get_state() for name, generator in self._random.items()},
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict()` of a run with the same task, method and device."""
        state = copy.deepcopy(state)
        self.inversion.load_state_dict(state["inversion"])
        self._trainer.load_state_dict(state["trainer"])
        self.buffer.load_state_dict(state["buffer"])
        for name, generator in self._random.items():
            generator.set_state(state["random"][name])
        self.round, self.warm, self.synthesized = state["round"], state["warm"], state["synthesized"]


class _Clock:
    """Wall time between laps; waits for the device so that a lap holds the work it launched."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = time.perf_counter()

    def lap(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        last, self._last = self._last, time.perf_counter()
        return self._last - last
