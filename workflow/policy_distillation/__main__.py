"""What people do by hand: ``python -m policy_distillation inspect FILE``, ``evaluate AGENT``, ``watch AGENT``, ..."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from . import openmp, stopping

openmp.prepare("play")  # before torch is loaded
if __name__ == "__main__":
    stopping.end_at_ctrl_c()

import numpy as np
import tyro

from .acting import EPSILON
from .checkpoints import load_agent, save_agent
from .evaluate import SLOTS_PER_SHARE, Actor, Evaluation, mean_return, play_episodes
from .exporting.command import export
from .exporting.onnx import OnnxAgent
from .files import check_output, strict_json
from .games import game_name
from .header import protocol_name, read_metadata
from .importing.agents import describe, import_agent
from .parts import Part
from .protocols import ProtocolName
from .provenance import provenance
from .readouts import Acting, Outputs, describe_acting
from .sidecar import read_sidecar, sidecar_path
from .sources import SourceError, check_import
from .training import prepare_process, select_device, select_precision, stream
from .watch import record, watch

File = Annotated[Path, tyro.conf.Positional]


def inspect(file: File) -> None:
    """Say what an agent (.safetensors or .onnx), part of a data set (.h5) or table (.csv) is, what made it, if intact.

    Args:
        file: the file to look into.
    """
    if file.suffix == ".h5":
        with Part(file) as part:
            description = part.describe()
    elif file.suffix == ".csv":
        description = describe_csv(file)
    elif file.suffix == ".onnx":
        description = OnnxAgent(file).metadata
    else:
        agent, metadata = load_agent(file)
        description = {**metadata, "parameters": agent.parameter_count}
    print(strict_json(description, indent=2))


def describe_csv(csv: Path) -> dict[str, Any]:
    """A CSV's sidecar; of a learning curve the metadata of the agent that it was learnt by."""
    agent = csv.with_name("agent.safetensors")
    if csv.name == "progress.csv" and agent.exists() and not sidecar_path(csv).exists():
        return {"learning curve of": str(agent), **read_metadata(agent)}
    return read_sidecar(csv)


def evaluate(
    agent: File,
    game: str | None = None,
    protocol: ProtocolName | None = None,
    episodes: int = 32,
    envs: int = SLOTS_PER_SHARE,
    epsilon: float = EPSILON,
    acting: Acting | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 2,
) -> None:
    """Let an agent play and print its mean return, its standard error and how the agent acted.

    Args:
        agent: an agent's file, or one that was exported to ONNX.
        game: which of its games; all of them by default.
        protocol: how the emulator is driven; the one the agent was made under by default.
        episodes: games to play, a multiple of envs.
        envs: emulators in lockstep.
        epsilon: probability of a random action; an agent whose policy is sampled takes none.
        acting: how to choose actions: epsilon_greedy, or sample from the softmax of its logits; as its file says by
            default.
        seed: of emulators and exploration.
        device: auto, cpu or cuda.
        threads: CPU threads.
    """
    prepare_process(seed, threads)
    evaluation = Evaluation(episodes, envs, epsilon)
    place = select_device(device)
    player: Actor
    if agent.suffix == ".onnx":
        player = OnnxAgent(agent)
        metadata = player.metadata
    else:
        player, metadata = load_agent(agent, place)
    for name in [game_name(game)] if game else sorted(player.actions):
        if acting and name in player.readouts:
            player.readouts[name] = replace(player.readouts[name], acting=acting)
        played = play_episodes(
            player,
            name,
            protocol or protocol_name(metadata, agent),
            evaluation,
            stream(seed, "evaluation"),
            select_precision("auto", place),
        )
        returns = [episode.episode_return for episode in played]
        error = np.std(returns, ddof=1) / len(returns) ** 0.5 if len(returns) > 1 else float("nan")
        print(f"{name}: mean return {mean_return(played):.2f} ± {error:.2f} over {len(played)} episodes", end=" ")
        print(f"(lowest {min(returns):g}, median {np.median(returns):g}, highest {max(returns):g});", end=" ")
        print(describe_acting(player.readouts[name], epsilon))


def import_(
    file: Annotated[str, tyro.conf.Positional],
    game: str,
    library: Annotated[
        Literal["sb3", "cleanrl", "dopamine", "tianshou", "pfrl", "kaixhin", "atari_agents"] | None,
        tyro.conf.arg(name="from"),
    ] = None,
    mapping: Path | None = None,
    input_divisor: float | None = None,
    actions: tuple[int, ...] | None = None,
    outputs: Outputs | None = None,
    acting: Acting | None = None,
    protocol: ProtocolName | None = None,
    revision: str | None = None,
    hub_file: str | None = None,
    output: Path = Path("agent.safetensors"),
    episodes: int = 0,
) -> None:
    """Turn an agent that another library trained into one of this project, and say what was found.

    Args:
        file: what Stable-Baselines3, sb3-contrib, CleanRL, Dopamine (JAX), tianshou, pfrl, Kaixhin's Rainbow or
            atari-agents saved, or any file of tensors with a mapping; a folder of snapshots, of which the newest is
            read; with --revision a repository on the model hub, such as sb3/dqn-PongNoFrameskip-v4.
        game: the game it plays: pong, or as Gymnasium spells it, such as ALE/Pong-v5.
        library: who saved it; guessed by default.
        mapping: a YAML file that describes the network (docs/importing.md).
        input_divisor: what pixels were divided by before the first layer, where the file does not tell: 255, or 1.
        actions: ALE ids of the outputs; by default the protocol's, in order.
        outputs: what its outputs are: q_values, or logits, as a student's of KL; by default as such agents' are.
        acting: how it acts: epsilon_greedy, or sample from its policy; by default as such agents do.
        protocol: how the agent will be driven; by default as its library does.
        revision: commit in the hub's repository.
        hub_file: name of the file in it; by default as the library names it.
        output: where the agent goes.
        episodes: games to play and score it on, a multiple of 16; none by default.
    """
    if revision and not re.fullmatch("[0-9a-f]{40}", revision):
        raise SourceError(f"--revision {revision}; allowed: a full commit, 40 hex digits")
    if hub_file and not revision:
        raise SourceError("--hub-file belongs to --revision; another file is named as it is")
    if mapping and library:
        raise SourceError(f"--from {library} means nothing beside --mapping, which describes the network")
    if actions is not None and not actions:
        raise SourceError("--actions needs the ALE ids of the outputs, such as --actions 0 1 3 4")
    source = {
        "from": "mapping" if mapping else library,
        "hub" if revision else "path": file,
        "revision": revision,
        "file": hub_file,
        "mapping": mapping and str(mapping),
        "input_divisor": input_divisor,
        "actions": actions and list(actions),
        "outputs": outputs,
        "acting": acting,
    }
    source = {key: value for key, value in source.items() if value is not None}
    check_import({"from": "any library", **source}, "import")
    if episodes:
        Evaluation(episodes, SLOTS_PER_SHARE, epsilon=EPSILON)  # better refused now than once the agent is written
    agent, metadata = import_agent(source, game_name(game), protocol)
    check_output(output, [Path(file), *([mapping] if mapping else [])])
    save_agent(output, agent, {**metadata, "provenance": provenance()})
    print(describe(agent, metadata))
    print(f"{'written to':<10} {output}")
    if episodes:
        evaluate(output, episodes=episodes)


def main() -> None:
    with stopping.told_in_a_line():
        tyro.extras.subcommand_cli_from_dict(
            {
                "inspect": inspect,
                "evaluate": evaluate,
                "watch": watch,
                "record": record,
                "import": import_,
                "export": export,
            },
            prog="policy_distillation",
        )


if __name__ == "__main__":
    main()
