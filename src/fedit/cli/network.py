"""The commands of a federation over a network: provision · server · join."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedit.cli.app import AsJson, Words, app, calm_models, read_plan
from fedit.core.errors import InputError
from fedit.printable import printable

Carrier = Annotated[
    bool,
    typer.Option(
        "--carrier/--no-carrier",
        help="run NVFlare, or use one that runs and has FEDIT_SOCKET",
    ),
]

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="this site's own settings, e.g. device=cuda"),
]


@app.command()
def provision(
    network: Annotated[Path, typer.Argument(metavar="FEDERATION", help="host and sites (YAML)")],
    output: Annotated[Path, typer.Option(help="folder of the kits")] = Path("kits"),
    as_json: AsJson = False,
) -> None:
    """Make a kit for the server, each site and the operator; made again, only for new sites."""
    from fedit.config import Network
    from fedit.federation.kit import make_kits, open_kit
    from fedit.recipe import load_section

    members = load_section(Network, network)
    made = make_kits(members, output)
    revoked = open_kit(output / "server", "server").revoked
    if as_json:
        print(json.dumps({name: str(path) for name, path in made.items()}))
        return
    for name, path in made.items():
        print(f"{name}: {path}")
    if not made:
        print("every member has its kit already", file=sys.stderr)
    if revoked:
        print(f"revoked: {', '.join(revoked)}; give the server its new fedit.json", file=sys.stderr)


@app.command()
def server(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="the server's kit")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe (YAML)")],
    changes: Words = None,
    output: Annotated[Path | None, typer.Option(help="run folder (default runs/NAME)")] = None,
    carrier: Carrier = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    as_json: AsJson = False,
) -> None:
    """Drive a recipe's rounds over the sites that join; started again, it goes on where it was."""
    plan = read_plan(recipe, changes, output)
    from fedit.federation.kit import open_kit
    from fedit.federation.line import carrying

    def tell(site: str, what: str) -> None:
        if not (quiet or as_json):
            print(f"{site}: {printable(what)}", file=sys.stderr)

    opened_kit = open_kit(kit, "server")
    try:
        with carrying(opened_kit, tell, carrier) as line:
            calm_models()  # the carrier starts while the model libraries load
            from fedit.federation.server import serving
            from fedit.progress import Watched, display

            shown = display(quiet=quiet, as_json=as_json)
            with serving(opened_kit, line, plan, tell) as opened, shown:
                shown.opened(opened)
                for done in opened.rounds(lambda engine: Watched(engine, shown)):
                    shown.finished(done)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    if not (quiet or as_json):
        print(f"done: {Path(plan.folder) / 'adapter'}", file=sys.stderr)


@app.command()
def join(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="this site's kit")],
    data: Annotated[str, typer.Option(help="this site's rows: a file, a folder or a glob")],
    changes: Settings = None,
    local: Annotated[Path | None, typer.Option(help="this site's own settings (YAML)")] = None,
    carrier: Carrier = True,
) -> None:
    """Take part with rows that stay here, until stopped; the site's policy.yaml says what is allowed."""
    calm_models()
    from fedit.config import Site
    from fedit.federation.site import join as taking_part
    from fedit.recipe import load_section

    if not data:
        raise InputError("--data: name this site's rows, e.g. --data private.jsonl")
    settings = load_section(Site, local, changes or ())
    try:
        for line in taking_part(kit, data, settings, carrier):
            print(printable(line), file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; the same command joins again", file=sys.stderr)
        raise typer.Exit(130) from None
