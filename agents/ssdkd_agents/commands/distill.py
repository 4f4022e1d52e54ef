"""A student out of a teacher whose data are gone: one distillation run with any sampler.

Examples:
  ssdkd distill --out runs/student
  ssdkd distill --out runs/mine --teacher my.safetensors --teacher-arch mypkg.nets:make --sampler uniform
  ssdkd distill --out runs/learnt --sampler runs/ppo
  ssdkd distill --out runs/mine --resume
  ssdkd distill --out runs/long --budget.rounds 80 --student.lr 0.1 --method-options.adversarial-weight 1
  ssdkd distill --out runs/pictures --keep-images 5000 --keep-logits float16 --keep-generator
  torchrun --nproc-per-node 4 --no-python ssdkd distill --out runs/student
  tensorboard --logdir runs

Writes student.safetensors and its card student.json, picture.png, results.jsonl, tensorboard logs, config.json and
command.txt into the folder; on demand images.safetensors and generator.safetensors, with cards. Ctrl-C leaves the
student so far and a checkpoint, which there is every two minutes, too: --resume goes on from it.

Under torchrun, processes share the student's minibatches, on a GPU each if there are
any; the rest of a run is the first one's alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssdkd_agents.benchmarking.experiments import EpisodeConfig, begin, play_on
from ssdkd_agents.commands.command_line import Plugins, launch, refuse_beside_resume, resuming
from ssdkd_agents.commands.dialect import ARGUMENTS, make_env_options
from ssdkd_agents.commands.given import Given
from ssdkd_agents.distilling.curve import LearningCurve
from ssdkd_agents.distilling.episode import DistillationEpisode, forget_distillation
from ssdkd_agents.distilling.keep import GENERATOR, IMAGES, Keep, keep_generator, keep_images
from ssdkd_agents.distilling.together import Leading, help_the_leader, joined
from ssdkd_agents.inputs import inputs_of
from ssdkd_agents.introduction import introduce
from ssdkd_agents.lines import read_lines
from ssdkd_agents.policies.storage import face_of, load_sampler
from ssdkd_agents.progress import progress
from ssdkd_agents.runs import RunFolder, versions
from ssdkd_agents.schemas import DistilledRun
from ssdkd_agents.stopping import Stopper
from ssdkd_env.envs import SSDKDEnv
from ssdkd_env.envs.settings import EnvArguments, EnvSettings
from ssdkd_env.errors import InvalidInputError
from ssdkd_env.extras import load_extra
from ssdkd_env.files import write_atomically, write_json
from ssdkd_env.networks.checkpoints import save_weights
from ssdkd_env.reading import check_bounds, conform, read_text
from ssdkd_env.settings import check_seed
from ssdkd_env.tasks.cards import describe

STUDENT, CARD, RESULTS, CHECKPOINT = "student.safetensors", "student.json", "results.jsonl", "checkpoint.json"
PICTURE = "picture.png"
#: Of an environment's arguments all that matter to one run: nobody learns from its rewards.
OPTIONS = make_env_options([name for name in ARGUMENTS if name not in ("reward", "clock", "render_mode")])
#: Of an option that has no default to be shown.
UNSAID = tyro.conf.arg(help_behavior_hint="")


@dataclass
class Arguments(Plugins):
    """Command line of `ssdkd distill`."""

    out: Path
    """Folder for the results; must be new or empty, unless --resume."""
    sampler: str = "own"
    """own (the method's: the paper's for ssdkd), paper, uniform, …, or the file or run folder of a trained sampler."""
    seed: int = 0
    """Of everything in the run."""
    resume: bool = False
    """Continue the run in --out, with its own settings."""
    keep_images: Annotated[Literal["buffer"] | int | None, tyro.conf.DisallowNone, UNSAID] = None
    """Keep synthetic images for others to train on: buffer (those in it at the end), or a number (the last so many that
    came into it)."""
    keep_logits: Annotated[Literal["float32", "float16", "none"] | None, tyro.conf.DisallowNone, UNSAID] = None
    """Type of the teacher's logits beside the images; labels are always kept. float32 where nothing is given, none for
    segmentation, where they take many times the images."""
    keep_generator: bool = False
    """Keep the generator as it is at the end."""
    env: Annotated[Given, tyro.conf.arg(constructor=OPTIONS, name="")] = field(default_factory=OPTIONS)
    """What the run is made of, by the names that `SSDKDEnv` has for it."""


def main(args: Arguments) -> None:
    """Do what the command line says, or help whoever does."""
    with joined() as side:
        if isinstance(side, Leading):
            _distil(args, side)
        else:
            help_the_leader(side)


def _distil(args: Arguments, leading: Leading) -> None:
    check_seed("seed", args.seed)
    load_extra("matplotlib.image", "the picture of the run")  # before the hours, not after them
    if args.resume:
        refuse_beside_resume(args)
        folder = RunFolder.resume(args.out)
        given, keep = _settings_of_run(folder)
        sampler, seed = folder.config["sampler"], folder.config["seed"]
    else:
        folder, sampler, seed = None, args.sampler, args.seed
        given = {**face_of(sampler), **args.env.settings()}
        keep = Keep(args.keep_images, args.keep_logits, args.keep_generator)
    env = SSDKDEnv(**given, clock=True, render_mode="rgb_array")
    load_sampler(sampler, env, seed)  # refuses what is none, before the folder is made
    keep.check(env)
    config = {"out": str(args.out), "sampler": sampler, "seed": seed, "keep": asdict(keep)} | asdict(env.settings)
    folder = folder or RunFolder(args.out, config, inputs_of(env))
    checkpoint = folder.path / CHECKPOINT
    if (folder.path / RESULTS).is_file() and read_lines(folder.path / RESULTS):
        forget_distillation(checkpoint)  # of a process that was killed right before it did so
        print(f"this run is finished; student: {folder.path / STUDENT}")
        return
    print("\n".join(introduce(env.task, env.settings, env.device)))
    if keep.last:
        size = keep.last * keep.image_bytes(env.task) / 2**20
        print(f"images to be kept: at most {keep.last:,}, {size:,.2f} MiB with what the teacher says of them")
    print(f"curves: tensorboard --logdir {folder.path}")
    print("making the probe set (once for a teacher) and filling the buffer …", flush=True)
    described = EpisodeConfig("", sampler, seed, asdict(env.settings))
    episode = begin(lambda: DistillationEpisode(described, env, keep.last), checkpoint)
    curve = LearningCurve(folder.path, env, episode.recent, _table_row(sampler, seed, env.settings), episode.info)
    with leading.sharing(env):
        ended = _play(episode, env, checkpoint, curve)
    if not ended:
        _say_so_far(episode, env, folder.path)
        sys.exit(130)
    _write_student(env, folder.path, episode.info)
    _say_result(folder.path, episode.info)
    _write_picture(env, folder.path)
    _write_kept(folder.path, env, episode, keep)
    _write_result(folder, config, episode)
    forget_distillation(checkpoint)


def _say_so_far(episode: DistillationEpisode, env: SSDKDEnv, folder: Path) -> None:
    """Keep the student of an interrupted run, if it has learned yet, and say how to go on."""
    rounds = episode.info["round"]
    if rounds:
        _write_student(env, folder, episode.info)
        _say_result(folder, episode.info)
    print(f"stopped after {rounds} rounds; continue with: {resuming(folder)}")


def _write_student(env: SSDKDEnv, folder: Path, info: dict[str, Any]) -> None:
    assert env.run is not None
    save_weights(folder / STUDENT, env.run.student)
    write_json(folder / CARD, student_card(env, folder, info))


def _write_picture(env: SSDKDEnv, folder: Path) -> None:
    frame, pictures = env.render(), load_extra("matplotlib.image", "the picture of the run")
    assert frame is not None
    write_atomically(folder / PICTURE, lambda temporary: pictures.imsave(temporary, frame))
    print(f"picture: {folder / PICTURE}")


def _say_result(folder: Path, info: dict[str, Any]) -> None:
    if info["diverged"]:
        print("the student diverged (NaN): its weights are useless; try a smaller --student.lr")
    if "accuracy" in info:
        print(f"accuracy on real {'pixels' if 'mean_iou' in info else 'images'}: {info['accuracy']:.4f}")
    if "mean_iou" in info:
        print(f"mean IoU on real images: {info['mean_iou']:.4f}")
    print(f"agreement with the teacher on the probe set: {info['probe_agreement']:.4f}")
    print(f"student: {folder / STUDENT}")


def _write_kept(folder: Path, env: SSDKDEnv, episode: DistillationEpisode, keep: Keep) -> None:
    """Write what was asked for beside the student, which is whole whatever happens here."""
    card = {
        "task": env.task.spec.name,
        "method": env.method.name,
        "sampler": episode.config.sampler,
        "seed": episode.config.seed,
        "round": episode.info["round"],
        **_origin(env, folder),
    }
    if keep.images is not None:
        count = keep_images(folder, env, episode.recent, keep, card)
        size = (folder / IMAGES).stat().st_size / 2**20
        print(f"images: {folder / IMAGES} ({count:,}, {size:,.2f} MiB)")
    if keep.generator:
        keep_generator(folder, env, card)
        print(f"generator: {folder / GENERATOR}")


def _write_result(folder: RunFolder, config: dict[str, Any], episode: DistillationEpisode) -> None:
    info = {name: value for name, value in episode.info.items() if name != "seconds"}
    seconds = {part: episode.trace.seconds[part] for part in ("synthesis", "distillation")}
    played = {"final": info, "seconds": seconds, "actions": episode.trace.actions, "versions": versions()}
    folder.append(config | played)


def _table_row(sampler: str, seed: int, settings: EnvSettings) -> dict[str, Any]:
    """The run's row of TensorBoard's table, under the names that trainings have there."""
    usual = asdict(EnvSettings())
    changed = {name: value for name, value in asdict(settings).items() if value != usual[name]}
    ours = {name: value for name, value in changed.items() if name not in ("task", "clock", "render_mode")}
    return {
        "algorithm": f"distill: {settings.method}, {sampler}",
        "env_id": settings.task,
        "env_kwargs": ours,
        "hyperparameters": {},
        "seed": seed,
    }


def student_card(env: SSDKDEnv, folder: Path, info: dict[str, Any]) -> dict[str, Any]:
    """What a user of the student needs to know, so that it can be read back as a teacher."""
    assert env.run is not None
    spec = env.task.spec
    score, measured = ("mean_iou", "mean_iou") if "mean_iou" in info else ("top1", "accuracy")
    known = measured in info  # of the last round, if there are real images
    return {
        **describe(STUDENT, env.run.student, spec.student_arch, spec.student_options, spec),
        **({score: {"evaluation": info[measured]}} if known else {}),
        "evaluation": env.settings.evaluation or (f"the real images of task {spec.name}" if known else ""),
        "probe_agreement": info["probe_agreement"],
        "rounds": {"done": info["round"], "progress": info["progress"]},
        "method": env.method.name,
        **_origin(env, folder),
    }


def _origin(env: SSDKDEnv, folder: Path) -> dict[str, Any]:
    """What every card of a run says of where it comes from."""
    spec = env.task.spec
    return {
        "taught_by": {
            "weights": Path(spec.teacher_weights).name,
            "arch": spec.teacher_arch,
            "digest": env.task.teacher_digest(),
        },
        "command": read_text(folder / "command.txt").strip(),
        "versions": versions(),
    }


def _settings_of_run(folder: RunFolder) -> tuple[dict[str, Any], Keep]:
    """The arguments of an earlier run's environment, and what it keeps.

    Raises:
        InvalidInputError: when the folder was made by another command.
    """
    config = folder.config
    if not {"sampler", "seed", "task", "render_mode"} <= config.keys():
        raise InvalidInputError(f"{folder.path} was not made by ssdkd distill; give the folder of such a run")
    names = {each.name for each in fields(EnvSettings)} - {"clock", "render_mode"}
    settings = {name: config[name] for name in names if name in config}  # runs of earlier versions have fewer
    check_bounds(settings, folder.path)
    for what, schema in ((settings, EnvArguments), (folder.config, DistilledRun)):
        conform(what, schema, folder.path, "start anew in another folder")
    keep = conform(config.get("keep", {}), Keep, folder.path, "start anew in another folder")
    return settings, keep


def _play(episode: DistillationEpisode, env: SSDKDEnv, checkpoint: Path, curve: LearningCurve) -> bool:
    """Play an episode to its end, with a checkpoint now and then; false where Ctrl-C, with one, came before."""
    total, unit = (100, "%") if env.budget.work else (env.budget.rounds, "round")
    with Stopper() as stop, progress(total, unit) as bar:

        def show() -> None:
            info = episode.info
            curve.see(info)
            shown = [key for key in ("probe_agreement", "accuracy", "mean_iou") if key in info]
            bar.set_postfix({key: f"{info[key]:.3f}" for key in shown}, refresh=False)
            bar.update((round(100 * info["progress"]) if env.budget.work else info["round"]) - bar.n)

        return play_on(episode, checkpoint, stop, show)


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse a command line (`sys.argv` where none is given) and do what it says."""
    launch(Arguments, main, __doc__, "ssdkd distill", arguments)
