"""A run's result as a full model: the adapter merged into the base, with a model card."""

from pathlib import Path
from typing import Any

from peft import PeftModel

from fedit.build import make_adapter, make_base
from fedit.config import Virtual
from fedit.core.errors import InputError
from fedit.core.examples import Turn
from fedit.core.messages import ADAPTER, models
from fedit.files import whole_folder
from fedit.report.folder import RunFolder
from fedit.score import Loaded, load_run


def export(path: Path, target: Path, cluster: int = 0) -> None:
    """Write base + adapter of a run as one model folder that plain transformers loads.

    `cluster` says which of IFCA's global models. A quantised base is loaded unquantised for it. Raises
    InputError for virtual tokens, which are no weights of the base, and for a target that is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"export {target}: is not an empty folder; name a new one")
    loaded = load_run(path, cluster)
    plan, model = loaded.plan, loaded.adapted.model
    if isinstance(plan.adapter, Virtual):
        raise InputError(
            f"adapter.kind {plan.adapter.kind}: virtual tokens cannot be merged into the base; "
            f"load {path / 'adapter'} with PeftModel.from_pretrained instead"
        )
    if plan.model.quantise:
        plain = plan.model_copy(update={"model": plan.model.model_copy(update={"quantise": None})})
        base, _ = make_base(plain)
        adapted = make_adapter(plain, base)
        adapted.load({**loaded.state.public, ADAPTER: models(loaded.state.public)[cluster]})
        model = adapted.model
    merged: Any = model.merge_and_unload() if isinstance(model, PeftModel) else model
    card = model_card(loaded, RunFolder(path, read_only=True))
    with whole_folder(target) as folder:
        merged.save_pretrained(folder)
        loaded.base.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(loaded: Loaded, folder: RunFolder) -> str:
    """How the model was made, from the run's own records."""
    plan, source = loaded.plan, loaded.base.source
    journal, known = folder.journal(), folder.environment()
    scored = [r for r in journal if r.get("evaluation", {}).get("loss") is not None]
    losses = "not measured"
    if scored:
        unit = "pair" if plan.local.objective == "dpo" else "token"
        first, last = scored[0], scored[-1]
        losses = (
            f"{first['evaluation']['loss']:.4f} before (round {first['round']}), "
            f"{last['evaluation']['loss']:.4f} after round {last['round']} (nats per {unit})"
        )
    trained = known.get("parameters", {})
    on_hub = source != "made" and not Path(source).exists()
    base = source if on_hub else f"{Path(source).name} (a local folder)"
    if source == "made":
        base = "random weights, made from the plan's model.config"
    header = ["---", "library_name: transformers", "tags: [federated-learning, instruction-tuning]"]
    header += [f"base_model: {source}"] if on_hub else []
    facts = [
        ("Base", base),
        ("Method", f"{plan.algorithm.name}, {plan.adapter.kind} adapter"),
        ("Trained", f"{trained.get('trained', 0):,} of {trained.get('all', 0):,} parameters"),
        ("Clients", f"{len(known.get('clients', {}))}, {loaded.state.round} rounds"),
        ("Held-out loss", losses),
        ("Prompt template", plan.template.name),
        ("Seed", str(plan.seed)),
        ("Versions", ", ".join(f"{k} {v}" for k, v in known.get("versions", {}).items())),
    ]
    rows = [f"| {name} | {value} |" for name, value in facts]
    question = Turn("user", "{instruction}", "{context}")
    prompt = loaded.encoder.prompt(question)
    return "\n".join(
        [
            *header,
            "---",
            f"# {plan.name}",
            "",
            "Tuned by federated instruction tuning, simulated on one machine that held all clients' data: "
            "no privacy guarantee is claimed.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "Prompts look like this, and the answer ends with the tokenizer's end-of-sequence token:",
            "",
            "```text",
            prompt,
            "```",
            "",
        ]
    )
