"""One distillation run as a resumable state machine: `step(plan)` does one round, top to bottom."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ssdkd_env import ranges
from ssdkd_env.devices import memory_of
from ssdkd_env.distillation import priority, sampling
from ssdkd_env.distillation.allowance import NOTHING, Amounts
from ssdkd_env.distillation.augmentation import Normalize, to_uint8
from ssdkd_env.distillation.buffer import Entries, ReplayBuffer
from ssdkd_env.distillation.costs import allowance_of
from ssdkd_env.distillation.emphasis import Emphasis
from ssdkd_env.distillation.execution import EAGER, Execution, choose_backend, choose_precision
from ssdkd_env.distillation.inversion import Inversion
from ssdkd_env.distillation.methods import Method
from ssdkd_env.distillation.plan import SamplingPlan
from ssdkd_env.distillation.problem import Problem
from ssdkd_env.distillation.replacement import newest_first, replacement
from ssdkd_env.distillation.report import Distillation, RoundClock, RoundReport, Synthesis, make_report
from ssdkd_env.distillation.restoring import restore
from ssdkd_env.distillation.sizes import Sizes, check_memory
from ssdkd_env.distillation.student import StudentTrainer
from ssdkd_env.distillation.undo import whole_or_not_at_all
from ssdkd_env.distillation.work import LayerRandom, LogitsWork, SynthesisWork, TrainingWork, perform
from ssdkd_env.networks.folding import FoldedTwin
from ssdkd_env.settings import check_seed
from ssdkd_env.threads import one_at_a_time


@one_at_a_time
class DistillationRun:
    """SSD-KD, or another method of the same engine, from an untrained student to the end of the budget.

    All randomness comes from generators of the run's own, all seeded from `seed`; PyTorch's global generators are
    put back as they were after every call. On the CPU two runs of one seed are bit-identical.

    Args:
        task: teacher, networks, sizes and budget.
        method: the settings of inversion, memory and loss.
        seed: of everything in this run, from 0 to 2**63 − 1.
        device: where it all happens.
        backend: `"plain"`, the reference; `"fast"`, the same numbers but for rounding, with BatchNorm folded in the
            teacher that answers and less overhead a step; `"compiled"`, the fast one whose hot loops go through
            `torch.compile` (on CUDA as CUDA graphs), whose compilation delays the first round; `"auto"`, `"fast"`.
        precision: `"float32"`, or `"bfloat16"` for the products in the hot loops and where the student's answer to the
            whole memory is measured after a round; `"auto"`, see `choose_precision`. Logits, losses and divergences
            are float32, and so is what is measured of fresh images, of the probe set and of real ones.

    Attributes:
        buffer: the images that the student studies, whatever memory the method has.
        trainer: of the student's minibatches.
        precision: what is computed in, and why.
        synthesized: images synthesised so far.
        synthesized_class_counts: (classes,) float64, the teacher's classes of all of them.
        synthesized_difficulty: (DIFFICULTY_BINS,) float64, all of them in bins of 1 − p_T.

    Raises:
        InvalidInputError: when the seed is out of range, or the method needs real training images and the task has
            none.
    """

    def __init__(
        self,
        task: Problem,
        method: Method,
        seed: int,
        device: torch.device | str = "cpu",
        backend: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.task = task
        self.method = method
        self.seed = seed = check_seed("seed", seed)
        self.device = torch.device(device)
        self.backend = choose_backend(backend)
        self.precision = choose_precision(precision, self.device, task.spec.image_shape)
        execution = Execution(self.precision.name, "inductor" if self.backend == "compiled" else "")
        self._measuring = Execution(self.precision.name)  # of the whole memory, which costs as much as many minibatches
        spec, budget = task.spec, task.spec.budget
        seeds = torch.randint(2**62, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
        self._random = {
            name: torch.Generator(self.device).manual_seed(stream_seed)
            for name, stream_seed in zip(("inversion", "sampling", "augmentation"), seeds[:3], strict=True)
        }
        # Layers of the user's own, such as dropout, draw from the global generators: give them a stream too.
        self._random["layers"] = torch.Generator().manual_seed(seeds[3])
        self._real_seed = seeds[6]
        self.teacher = task.teacher_on(self.device)
        self._logits_teacher = task.teacher_on(self.device, folded=self.backend != "plain")
        self.student = task.build_student(seeds[4]).to(self.device).eval()
        example = torch.randn(2, *spec.image_shape, generator=torch.Generator().manual_seed(0))
        self._answering = FoldedTwin(self.student, None if self.backend == "plain" else example)
        self._normalize = Normalize(spec.mean, spec.std, self.device)
        self._sizes = Sizes.of(method, budget, task)
        check_memory(self._sizes, method, budget, task, memory_of(self.device))
        views: dict[str, Any] = {"normalize": self._normalize, "padding": spec.padding, "flip": spec.flip}
        self.inversion = Inversion(
            method,
            self.teacher,
            task.build_generator(seeds[5]).to(self.device),
            num_classes=spec.num_classes,
            image_shape=spec.image_shape,
            latent_dim=spec.latent_dim,
            batch_size=self._sizes.inversion_batch,
            steps=self._sizes.own.inversion_steps,
            **views,
            random=self._random["inversion"],
            execution=execution,
        )
        self.trainer = StudentTrainer(
            self.student,
            self._logits_teacher,
            spec.student,
            method,
            **views,
            random=self._random["augmentation"],
            execution=execution,
            plain=self.backend == "plain",
        )
        self.buffer = ReplayBuffer(
            self._sizes.capacity, spec.image_shape, spec.num_classes, self.device, dense=task.dense
        )
        self.allowance = allowance_of(method, task)
        self.round = self.synthesized = self._refreshed = 0
        self.warm = False
        nothing = Synthesis.none(spec.num_classes, self.device)
        self.synthesized_class_counts = nothing.class_counts
        self.synthesized_difficulty = nothing.difficulty_histogram
        # Runs may do like work together where all this is equal; rounds, amounts and buffer may differ.
        use = (spec.mean, spec.std, spec.padding, spec.flip, spec.student, self.inversion.batch_size)
        self._kind = (id(self.teacher), str(self.student), *use)

    @property
    def done(self) -> bool:
        """Whether the budget is used up."""
        return self.allowance.done

    @whole_or_not_at_all
    def warm_up(self) -> RoundReport:
        """Fill the memory before the student learns: `budget.warmup_rounds` batches without adversary.

        The newest images stay, because the generator is still bad when it makes the first. A method without warm-up
        makes one batch, with the untrained student as adversary, or reads the real images. Called once, by `step` if
        not before.

        Raises:
            RuntimeError: when it was called before.
            Exception: whatever stops it in the middle; the run is then as it was before.
        """
        if self.warm:
            raise RuntimeError("warm_up() was already called on this run; make a new DistillationRun to start over")
        clock = RoundClock(self.device)
        synthesis = self._fill()
        self.warm = True
        clock.lap("synthesis")
        agreement = self._refresh()
        zero = torch.zeros((), device=self.device)
        uniform = torch.full((len(self.buffer),), 1 / len(self.buffer), dtype=torch.float64, device=self.device)
        distillation = Distillation(zero, agreement, zero, uniform)
        return self._report(synthesis, distillation, clock)

    @whole_or_not_at_all
    def step(self, plan: SamplingPlan) -> RoundReport:
        """Do one round: synthesise, update the buffer, distil, refresh the priorities.

        A method that changes its images several times a round does the first three in as many turns; the report is of
        the last turn, with the losses and replacements of all.

        Raises:
            RuntimeError: when the budget is used up.
            InvalidInputError: when `plan.logits` has the wrong length.
            Exception: whatever stops it in the middle; the run is then as it was before.
        """
        if not self.warm:
            self.warm_up()
        if self.done:
            raise RuntimeError(f"the budget is used up after {self.round} rounds; make a new run")
        amounts = self.allowance.affordable(self._wanted(plan))
        turns = self._sizes.turns(amounts.student_steps)
        rows = len(self.buffer) + self._sizes.candidates
        sampling.check_logits(plan.logits, rows, len(turns), self.method.name)
        clock = RoundClock(self.device)
        self._reset_first_layer()
        self._renew_generator(self.round)
        learning_rate = self.trainer.learning_rate(self.allowance.position(amounts))
        loss = replaced = torch.zeros((), device=self.device)
        for minibatches in turns:
            candidates, synthesis = self._candidates(plan, amounts.inversion_steps)
            log_weights, left = self._update_buffer(candidates, plan, len(turns))
            replaced = replaced + left
            clock.lap("synthesis")
            shape = minibatches, self.task.spec.budget.batch_size
            draws = sampling.draw(
                plan, log_weights, self.method.importance_normalization, shape, self._random["sampling"]
            )
            self.buffer.residents.importance_weight.copy_(draws.importance_weights)  # w_{i−1} of the next δ
            loss = loss + self._train(draws, learning_rate)
            clock.lap("distillation")
        agreement = self._refresh()
        distillation = Distillation(loss / amounts.student_steps, agreement, replaced, draws.probabilities)
        self.allowance.spend(amounts)
        self.round += 1
        clock.lap("distillation")
        return self._report(synthesis, distillation, clock, learning_rate, amounts)

    def _report(
        self,
        synthesis: Synthesis,
        distillation: Distillation,
        clock: RoundClock,
        learning_rate: float = 0.0,
        amounts: Amounts = NOTHING,
    ) -> RoundReport:
        parts = self.buffer, synthesis, distillation, self.synthesized, self.allowance
        return make_report(self.round, *parts, clock, learning_rate, amounts)

    def _wanted(self, plan: SamplingPlan) -> Amounts:
        own = self._sizes.own
        return Amounts(plan.inversion_steps or own.inversion_steps, plan.student_steps or own.student_steps)

    def _reset_first_layer(self) -> None:
        share = self.method.first_layer_reset
        if share and self.allowance.has_passed(share):
            with self._layer_random().lent():
                self.inversion.source.reset_first_layer()

    def _renew_generator(self, born: int) -> None:
        if (life := self.method.generator_life) and born % life == 0:
            with self._layer_random().lent():
                self.inversion.source.reset_generator()

    def _fill(self) -> Synthesis:
        """The first images of the memory."""
        if self.method.memory == "real":
            return self._read_real_images()
        rounds = self.task.spec.budget.warmup_rounds if self.method.warm_up else 1
        for index in range(rounds):
            self._renew_generator(index - rounds)
            candidates, synthesis = self._synthesize(
                None if self.method.warm_up else self._answering.network,
                index - rounds,
                Emphasis.of(self.method),
                self._sizes.own.inversion_steps,
            )
            self.buffer.update(candidates, newest_first(self.buffer, candidates), self.buffer.capacity)
        return synthesis

    def _read_real_images(self) -> Synthesis:
        images = self.task.training_images()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self._real_seed))
        entries, _ = self._entries(images[order[: self.buffer.capacity]].to(self.device), born=0)
        self.buffer.update(entries, newest_first(self.buffer, entries), self.buffer.capacity)
        return Synthesis.none(self.task.spec.num_classes, self.device)

    def _candidates(self, plan: SamplingPlan, steps: int) -> tuple[Entries | None, Synthesis]:
        """Fresh images that want into the buffer, and what they are like; none where the images are real."""
        if self.method.memory == "real":
            return None, Synthesis.none(self.task.spec.num_classes, self.device)
        return self._synthesize(self._answering.network, self.round, Emphasis.of(self.method, plan), steps)

    def _synthesize(
        self, student: nn.Module | None, born: int, emphasis: Emphasis, steps: int
    ) -> tuple[Entries, Synthesis]:
        share, count = self.buffer.mean_class_share(), self._sizes.candidates
        together, random = self.backend != "plain", self._layer_random()
        images, losses = perform(
            SynthesisWork(self.inversion, student, share, count, steps, emphasis, random, together, self._kind)
        )
        self.synthesized += len(images)
        entries, agreement = self._entries(to_uint8(images), born)
        synthesis = Synthesis.of(entries, agreement, losses)
        self.synthesized_class_counts += synthesis.class_counts
        self.synthesized_difficulty += synthesis.difficulty_histogram
        return entries, synthesis

    def _entries(self, images: Tensor, born: int) -> tuple[Entries, Tensor]:
        """Entries for images (N, C, H, W) uint8 as the networks see them now, and the mean agreement on them."""
        teacher_logits = self._logits("teacher", images)
        student_logits = self._logits("student", images)
        count = len(images)
        with ranges.phase("comparison"):
            entries = Entries(
                images=images,
                teacher_logits=teacher_logits[:, :0].flatten(1) if self.task.dense else teacher_logits,
                class_share=priority.class_share(teacher_logits),
                confidence=priority.confidence(teacher_logits),
                discrepancy=priority.discrepancy(teacher_logits, student_logits),
                importance_weight=torch.ones(count, device=self.device),
                born=torch.full((count,), born, dtype=torch.int64, device=self.device),
            )
            return entries, priority.agreement(teacher_logits, student_logits).mean()

    @ranges.phase("buffer")
    def _update_buffer(self, candidates: Entries | None, plan: SamplingPlan, turns: int) -> tuple[Tensor, Tensor]:
        """Weigh buffer ∪ candidates, then decide who is in the buffer (see `replacement`).

        Returns:
            Log P of the new residents, (size,) float32 unnormalised, and the number of those that were replaced.
        """
        residents, share = self.buffer.residents, self.buffer.mean_class_share()
        if candidates is None:
            return sampling.log_weights(plan, share, residents), torch.zeros((), device=self.device)
        candidates.importance_weight.copy_(
            priority.entering_weights(candidates.discrepancy, residents.discrepancy, residents.importance_weight)
        )
        log_weights = sampling.log_weights(plan, share, residents, candidates)
        random = self._random["sampling"]
        update = self.buffer.update(
            candidates, *replacement(self.method, plan, self.buffer, candidates, log_weights, turns, random)
        )
        return log_weights[update.rows], update.replaced

    def _train(self, draws: sampling.Draws, learning_rate: float) -> Tensor:
        """Train the student on the drawn images; returns the sum of the minibatches' losses, a scalar tensor."""
        images, random = self.buffer.residents.images, self._layer_random()
        loss = perform(
            TrainingWork(self.trainer, images, draws.rows, draws.loss_weights, learning_rate, random, self._kind)
        )
        self._answering.follow()
        return loss

    def _refresh(self) -> Tensor:
        """Measure anew, with the student as it is now, what the priorities need to know of the buffer.

        A memory that grows is measured in turns, a sample a round, so that the cost of a round does not grow with it.
        Returns the mean agreement on the measured images.
        """
        residents = self.buffer.residents
        size, count = len(residents), min(len(residents), self._sizes.refreshed)
        if count == size:
            rows: Tensor | slice = slice(None)
        else:
            rows = (self._refreshed + torch.arange(count, device=self.device)) % size
            self._refreshed = (self._refreshed + count) % size
        images = residents.images[rows]
        teacher_logits = self._logits("teacher", images) if self.task.dense else residents.teacher_logits[rows]
        student_logits = self._logits("student", images, self._measuring)
        with ranges.phase("comparison"):
            residents.discrepancy[rows] = priority.discrepancy(teacher_logits, student_logits)
            return priority.agreement(teacher_logits, student_logits).mean()

    def _layer_random(self) -> LayerRandom:
        """For one piece of work. Drawn when it is asked for, so that it does not matter with whom it is done."""
        return LayerRandom(int(torch.randint(2**62, (1,), generator=self._random["layers"])), self.device)

    def _logits(
        self, role: str, images: Tensor, execution: Execution = EAGER, random: LayerRandom | None = None
    ) -> Tensor:
        network = self._logits_teacher if role == "teacher" else self._answering.network
        together, random = self.backend != "plain", random or self._layer_random()
        return perform(LogitsWork(network, role, images, self._normalize, random, together, self._kind, execution))

    def student_logits(self, images: Tensor) -> Tensor:
        """Logits of the student for images (N, C, H, W) uint8 on the run's device. The run goes on as if not asked."""
        return self._logits("student", images, random=LayerRandom(0, self.device))

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, copied: `load_state_dict` of it continues bit-identically on the CPU."""
        return self.state_beside_buffer() | {"buffer": self.buffer.state_dict()}

    def state_beside_buffer(self) -> dict[str, Any]:
        """The same without the buffer, which can be large."""
        state = {
            "round": self.round,
            "warm": self.warm,
            "synthesized": self.synthesized,
            "synthesized_class_counts": self.synthesized_class_counts,
            "synthesized_difficulty": self.synthesized_difficulty,
            "refreshed": self._refreshed,
            "allowance": self.allowance.state_dict(),
            "inversion": self.inversion.state_dict(),
            "trainer": self.trainer.state_dict(),
            "random": {name: generator.get_state() for name, generator in self._random.items()},
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict()` of a run with the same task, method and device."""
        self.buffer.load_state_dict(state["buffer"])
        self.load_beside_buffer(copy.deepcopy({name: value for name, value in state.items() if name != "buffer"}))

    def load_beside_buffer(self, state: dict[str, Any]) -> None:
        """Continue from `state_beside_buffer()`, whose tensors now belong to the run."""
        self.inversion.load_state_dict(state["inversion"])
        self.trainer.load_state_dict(state["trainer"])
        self._answering.follow()
        for name, generator in self._random.items():
            generator.set_state(state["random"][name])
        names = ("round", "warm", "synthesized", "refreshed")
        self.round, self.warm, self.synthesized, self._refreshed = (state[name] for name in names)
        restore(self.synthesized_class_counts, state["synthesized_class_counts"], "the class counts")
        restore(self.synthesized_difficulty, state["synthesized_difficulty"], "the difficulty histogram")
        self.allowance.load_state_dict(state["allowance"])
