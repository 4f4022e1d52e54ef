"""Faults that a test-suite has to find: each a line of the project, and a plausible wrong one."""

from __future__ import annotations

from dataclasses import dataclass

ENGINE, NETWORKS = "ssdkd_env/distillation", "ssdkd_env/networks"
ENVS, TASKS, AGENTS = "ssdkd_env/envs", "ssdkd_env/tasks", "agents/ssdkd_agents"


@dataclass(frozen=True)
class Mutation:
    """A line that is changed.

    Attributes:
        path: of the file.
        line: what stands there once.
        instead: the fault.
    """

    path: str
    line: str
    instead: str


MUTATIONS = {
    "w grows where it should shrink": Mutation(f"{ENGINE}/priority.py", "** -beta\n", "** beta\n"),
    "weights are not truncated": Mutation(f"{ENGINE}/priority.py", "math.sqrt(count))", "float(count))"),
    "KL without the teacher's weights": Mutation(
        f"{ENGINE}/priority.py",
        "(log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)",
        "(log_teacher - log_student).abs().mean(dim=1)",
    ),
    "delta without w": Mutation(f"{ENGINE}/priority.py", "return previous_weights * kl", "return kl"),
    "phi without difficulty": Mutation(
        f"{ENGINE}/priority.py", "* difficulty(p_teacher, difficulty_exponent)\n", "* difficulty(p_teacher, 0.0)\n"
    ),
    "a tie goes to the candidate": Mutation(
        f"{ENGINE}/buffer.py",
        "candidate_keys[contenders] > resident_keys[weakest]",
        "candidate_keys[contenders] >= resident_keys[weakest]",
    ),
    "the strongest residents leave": Mutation(
        f"{ENGINE}/buffer.py",
        "return keys.argsort(stable=True)[:count]\n    limit",
        "return keys.argsort()[-count:]\n    limit",
    ),
    "T squared is missing": Mutation(f"{ENGINE}/updates.py", "(temperature / predictions)", "(1.0 / predictions)"),
    "no weight decay": Mutation(f"{ENGINE}/updates.py", "        if self._weight_decay:\n", "        if False:\n"),
    "momentum is not kept": Mutation(f"{ENGINE}/updates.py", "            gradients = momenta\n", "            pass\n"),
    "the learning rate is one round late": Mutation(
        f"{ENGINE}/allowance.py", "max(self.total - self._cost(amounts), 1)", "max(self.total, 1)"
    ),
    "the student stays in training mode": Mutation(
        f"{ENGINE}/student.py", "        self.student.eval()\n        return total", "        return total"
    ),
    "the meta step forgets the last gradient": Mutation(
        f"{ENGINE}/sources.py",
        "        descend(self._optimizer, loss)\n        add_gradients(",
        "        loss.backward(retain_graph=True)\n        add_gradients(",
    ),
    "variance without the mean's square": Mutation(
        f"{ENGINE}/batch_norm.py",
        "by_run.to(dtype).square().mean(dims) - mean.square()",
        "by_run.to(dtype).square().mean(dims)",
    ),
    "statistics of earlier batches are swapped": Mutation(
        f"{ENGINE}/batch_norm.py",
        "self.momentum * self.past + (1 - self.momentum) * batch",
        "(1 - self.momentum) * self.past + self.momentum * batch",
    ),
    "flips are never made": Mutation(
        f"{ENGINE}/augmentation.py", "torch.cat(mirrors) < 0.5", "torch.cat(mirrors) < 0.0"
    ),
    "a checkpoint forgets the sampling's stream": Mutation(
        f"{ENGINE}/run.py",
        '            generator.set_state(state["random"][name])',
        '            generator.set_state(state["random"][name]) if name != "sampling" else None',
    ),
    "the twin does not follow": Mutation(
        f"{ENGINE}/run.py", "        self._answering.follow()\n        return loss", "        return loss"
    ),
    "members of a group are shuffled": Mutation(
        f"{NETWORKS}/grouping.py",
        "[[part[index] for part in parts] for index in range(self.count)]",
        "[[part[-index] for part in parts] for index in range(self.count)]",
    ),
    "the reward counts twice": Mutation(
        f"{ENVS}/episode.py", "gain, self._paid = self.score - self._paid, self.score", "gain = self.score - self._paid"
    ),
    "progress is of the last round": Mutation(
        f"{ENVS}/observations.py",
        "lambda at: at.now.report.progress)",
        "lambda at: at.before.report.progress)",
    ),
    "the oldest frame comes first": Mutation(
        f"{ENVS}/observations.py", "*self.frames[: self._history - 1]]", "*self.frames[1 : self._history]]"
    ),
    "an action's range is shifted": Mutation(
        f"{ENVS}/exponent_actions.py",
        "(np.clip(given, -1.0, 1.0) + 1.0) / 2.0",
        "np.clip(given, -1.0, 1.0) / 2.0 + 0.4",
    ),
    "accuracy of the wrong axis": Mutation(
        f"{TASKS}/task.py", "right = logits.argmax(dim=1) == labels", "right = logits.argmin(dim=1) == labels"
    ),
    "an interval is one-sided": Mutation(
        f"{AGENTS}/analysis/statistics.py",
        "[(1 - confidence) / 2, (1 + confidence) / 2]",
        "[0.0, (1 + confidence) / 2]",
    ),
    "pairs of other seeds": Mutation(
        f"{AGENTS}/analysis/statistics.py", "value - reference[seed] for", "value - min(reference.values()) for"
    ),
    "CMA-ES minimises the return": Mutation(
        f"{AGENTS}/searching/searchers.py", "[-value for value in means]", "list(means)"
    ),
    "normalisation goes on learning": Mutation(
        f"{AGENTS}/policies/normalization.py", "VecNormalize(venv, training=False,", "VecNormalize(venv, training=True,"
    ),
}
