"""A folder for the model hub: weights, model card, scores and, where there is one, a video.

The card follows what rl-baselines3-zoo, CleanRL and Sample Factory write: tags, and a model index with the metric
``mean_reward``, by which the hub's leaderboards sort. To publish it is the user's own command:
``hf upload USER/REPOSITORY FOLDER``.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..acting import EPSILON
from ..evaluate import SLOTS_PER_SHARE, Evaluation, play_episodes
from ..files import atomic_path, copy_file, file_digest, strict_json
from ..header import read_metadata
from ..networks import Agent
from ..protocols import Protocol
from ..readouts import describe_acting
from ..sidecar import read_sidecar, sidecar_path
from ..statistics import mean_return
from ..training import stream
from . import ExportError
from .environment import leaderboard_id, read_protocol

REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,96}/[A-Za-z0-9_.-]{1,96}")
CARD = """
# {title}

{kind} that plays {games}: {parameters:,} parameters. Made by `policy-distillation`, an implementation of
*Policy Distillation* ([Rusu et al., ICLR 2016](https://arxiv.org/abs/1511.06295)).

| game | mean return ± deviation | 95% interval of the mean | episodes | acts | outputs |
|---|---:|---:|---:|---|---|
{rows}

Protocol `{protocol}`: {protocol_facts}. {origin}

```python
# pip install huggingface_hub, and policy-distillation from its repository
from huggingface_hub import hf_hub_download
from policy_distillation import load_agent

agent, metadata = load_agent(hf_hub_download("{name}", "model.safetensors"))
actions, _ = agent{single}.predict(observations)  # uint8 (batch, 4, 84, 84), the oldest frame first
```

`config.json` is what the weights' file says of itself: network, action ids, settings, seeds, software, and digests of
the data and the teachers.
"""


@dataclass(frozen=True)
class Score:
    """An agent's games."""

    game: str
    returns: NDArray[np.float64]
    played: str | None
    """When, where that is known."""

    def results(self) -> dict[str, Any]:
        """What rl-baselines3-zoo's results.json holds."""
        known = {} if self.played is None else {"eval_datetime": self.played}
        return {
            "mean_reward": float(self.returns.mean()),
            "std_reward": float(self.returns.std()),
            "is_deterministic": False,
            "n_eval_episodes": len(self.returns),
            **known,
        }


def export_hub(
    path: Path,
    folder: Path,
    agent: Agent,
    metadata: Mapping[str, Any],
    scores: Sequence[Score],
    replay: Path | None = None,
    teachers: Sequence[Path] = (),
    name: str | None = None,
) -> None:
    """Write README.md, config.json, model.safetensors, results.json and replay.mp4, once :func:`check_hub` has passed.

    Args:
        path: the agent's file, which is copied as it is.
        scores: for each of its games, see :func:`find_scores` and :func:`play_scores`.
        replay: an mp4.
        teachers: the files of a student's teachers, to say where they came from.
        name: USER/REPOSITORY on the hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    origins = [_origin(teacher, metadata) for teacher in teachers]
    bases = [origin["hub"] for origin in [metadata.get("imported", {}), *origins] if "hub" in origin]
    protocol = read_protocol(metadata.get("protocol"), path)
    environments = {game: leaderboard_id(game, protocol) for game in agent.actions}
    title = (name or f"{metadata.get('kind', 'agent')}-{'-'.join(agent.actions)}").split("/")[-1]
    data = ModelCardData(
        library_name="policy-distillation",
        pipeline_tag="reinforcement-learning",
        tags=[*environments.values(), "deep-reinforcement-learning", "reinforcement-learning", "policy-distillation"],
        base_model=bases or None,
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=environments[score.game],
                dataset_name=environments[score.game],
                metric_type="mean_reward",
                metric_name="mean_reward",
                metric_value=f"{score.returns.mean():.2f} +/- {score.returns.std():.2f}",
                verified=False,
            )
            for score in scores
        ],
    )
    text = CARD.format(
        title=title,
        kind={"student": "A student", "imported": "An imported agent"}.get(str(metadata.get("kind")), "A teacher"),
        games=", ".join(agent.actions),
        parameters=agent.parameter_count,
        rows="\n".join(_row(agent, score) for score in scores),
        protocol=protocol.name,
        protocol_facts=_facts(protocol),
        origin=" ".join(_sentence(metadata, origins)),
        name=name or "USER/REPOSITORY",
        single="" if len(agent.actions) == 1 else f'.single("{next(iter(agent.actions))}")',
    )
    results = {score.game: score.results() for score in scores}
    one = results[scores[0].game] if len(scores) == 1 else {"games": results}
    texts = {
        "README.md": f"---\n{data.to_yaml()}\n---\n{text}",
        "config.json": strict_json(dict(metadata), indent=1) + "\n",
        "results.json": json.dumps(one, indent=1) + "\n",
    }
    for file, content in texts.items():
        with atomic_path(folder / file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    for file, source in {"model.safetensors": path, "replay.mp4": replay}.items():
        if source is not None:
            copy_file(source, folder / file)


def check_hub(
    folder: Path, metadata: Mapping[str, Any], replay: Path | None, teachers: Sequence[Path], name: str | None
) -> None:
    """Raise ExportError for what :func:`export_hub` cannot be given: before games are played for it.

    In the folder nothing may lie: a README of one's own, or the video of another agent.
    """
    if name is not None and not REPOSITORY.fullmatch(name):
        raise ExportError(f"{name!r} is no repository on the hub; allowed: USER/REPOSITORY")
    if replay is not None and not (replay.is_file() and replay.suffix == ".mp4" and replay.stat().st_size):
        raise ExportError(f"{replay}: no video; allowed: an mp4, such as `record` makes")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ExportError(f"{folder}: exists; choose another folder with --output, or remove it")
    for teacher in teachers:
        _origin(teacher, metadata)


def find_scores(path: Path, metadata: Mapping[str, Any], csv: Path | None = None) -> list[Score]:
    """The games that an agent has played: ``csv``, or what lies beside its file.

    Raises ExportError, SidecarError where they are another agent's, or lie elsewhere and nothing says whose they are.
    """
    games = list(metadata["actions"])
    if csv is not None and len(games) > 1:
        raise ExportError(f"{path} plays {len(games)} games; their scores must lie beside it, in scores/GAME.csv")
    found = []
    for game in games:
        beside = [path.parent / "scores" / f"{game}.csv", *([path.parent / "scores.csv"] if len(games) == 1 else [])]
        candidates = [csv] if csv else beside
        file = next((file for file in candidates if file.is_file()), None)
        if file is None:
            raise ExportError(f"no scores of {game}: {', '.join(map(str, candidates))}; play some with --episodes 32")
        if sidecar_path(file).exists():
            _check_scored(file, metadata, game)
        elif file.resolve() not in [known.resolve() for known in beside]:
            raise ExportError(
                f"{file}: {sidecar_path(file).name}, which would say whose games these are, is missing; allowed: "
                "scores that lie beside the agent, or --episodes 32 to play some"
            )
        try:
            returns = pd.read_csv(file)["return"].to_numpy(np.float64)
        except (KeyError, ValueError):
            returns = np.empty(0)
        if not len(returns) or not np.isfinite(returns).all():
            raise ExportError(f"{file}: not the scores of an agent; expected a column 'return', of numbers")
        found.append(Score(game, returns, None))
    return found


def _check_scored(file: Path, metadata: Mapping[str, Any], game: str) -> None:
    """Raise ExportError for scores of another agent, or of games played otherwise than the card says."""
    scored = read_sidecar(file)
    if scored.get("agent", {}).get("digest") != metadata["digest"]:
        raise ExportError(f"{file}: the scores of another agent")
    evaluation, acting = scored.get("evaluation", {}), metadata.get("readouts", {}).get(game, {}).get("acting")
    for setting, played, told in (
        ("protocol", scored.get("protocol"), metadata["protocol"]["name"]),
        ("acting", scored.get("acting"), acting),
        ("starts", evaluation.get("starts"), "noop"),
        ("epsilon", evaluation.get("epsilon"), EPSILON),
    ):
        if played not in (None, told) and told is not None:
            raise ExportError(
                f"{file}: played with {setting} {played}; the hub's scores are with {told}: --episodes 32 plays such"
            )


def play_scores(agent: Agent, protocol: str, episodes: int, seed: int = 0) -> list[Score]:
    """Play ``episodes`` games, a multiple of 16, of each of an agent's games."""
    scores = []
    for game in agent.actions:
        played = play_episodes(
            agent, game, protocol, Evaluation(episodes, SLOTS_PER_SHARE, EPSILON), stream(seed, "evaluation"), "float32"
        )
        returns = np.array([episode.episode_return for episode in played])
        scores.append(Score(game, returns, datetime.datetime.now().isoformat(timespec="seconds")))
    return scores


def _origin(teacher: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Where a student's teacher came from. Raises ExportError where it is another's."""
    digest = file_digest(teacher) if teacher.is_file() else None
    if digest not in metadata.get("teachers", {}).values():
        raise ExportError(f"{teacher}: not a teacher of this agent, whose teachers are {metadata.get('teachers', {})}")
    known = read_metadata(teacher)
    return {
        "games": known.get("games"),
        "kind": known["kind"],
        "commit": known.get("commit"),
        **known.get("imported", {}),
    }


def _sentence(metadata: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]) -> list[str]:
    """The teachers' origin, in words."""
    sentences = []
    for origin in [*([metadata["imported"]] if "imported" in metadata else []), *origins]:
        subject = "Its teacher" if origin in origins else "It"
        if "from" in origin:
            file = Path(origin.get("path", "")).name  # where it lay is nobody's business
            place = f"`{origin['hub']}` at `{origin.get('revision')}`" if "hub" in origin else f"`{file}`"
            sentences.append(f"{subject} was trained with {origin['from']}: {place}, SHA-256 `{origin['digest']}`.")
        else:
            sentences.append(
                f"{subject} was trained by the same project ({origin['kind']}, commit {origin['commit']})."
            )
    for game, digest in metadata.get("teachers", {}).items():
        sentences.append(f"Distilled from the teacher of {game} with SHA-256 `{digest}`.")
    return sentences


def _row(agent: Agent, score: Score) -> str:
    low, high = mean_return([score.returns]).interval()
    readout = agent.readouts[score.game]
    return (
        f"| {score.game} | {score.returns.mean():,.1f} ± {score.returns.std():,.1f} | [{low:,.1f}, {high:,.1f}] | "
        f"{len(score.returns)} | {describe_acting(readout, EPSILON)} | {readout.outputs} |"
    )


def _facts(protocol: Protocol) -> str:
    """How the emulator is driven, in words."""
    sticky = protocol.repeat_action_probability
    return ", ".join(
        [
            f"sticky actions ({sticky:g})" if sticky else "no sticky actions",
            f"0 to {protocol.noop_max} no-ops at the start" if protocol.noop_max else "no no-ops at the start",
            *(["FIRE after a reset"] if protocol.fire_on_reset else []),
            "all 18 actions" if protocol.full_action_space else "the game's minimal actions",
            f"at most {protocol.max_episode_frames:,} frames",
        ]
    )
