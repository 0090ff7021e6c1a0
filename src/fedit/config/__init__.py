"""The plan of a run: frozen models of everything a recipe may say, with defaults and limits.

Names stay words here; `fedit.build` turns them into objects. Nothing is loaded to check a plan.
"""

from fedit.config.algorithm import Algorithm
from fedit.config.compression import Bf16, Code, Compression, TopK, Whole
from fedit.config.data import (
    Data,
    Dirichlet,
    Holdout,
    Iid,
    Key,
    Labelled,
    Partition,
    Shards,
    Sizes,
    Split,
    Template,
)
from fedit.config.engine import Engine, InProcess, Loopback, Ray, Sites, Workers
from fedit.config.model import IA3, Adapter, Lora, LoraXs, Model, Plain, Virtual
from fedit.config.network import Network, Policy, Site
from fedit.config.plan import Plan
from fedit.config.section import Amount, Section
from fedit.config.study import Personal, Study
from fedit.config.training import Evaluation, Federation, Gate, Local

__all__ = [
    "IA3",
    "Adapter",
    "Algorithm",
    "Amount",
    "Bf16",
    "Code",
    "Compression",
    "Data",
    "Dirichlet",
    "Engine",
    "Evaluation",
    "Federation",
    "Gate",
    "Holdout",
    "Iid",
    "InProcess",
    "Key",
    "Labelled",
    "Local",
    "Loopback",
    "Lora",
    "LoraXs",
    "Model",
    "Network",
    "Partition",
    "Personal",
    "Plain",
    "Plan",
    "Policy",
    "Ray",
    "Section",
    "Shards",
    "Site",
    "Sites",
    "Sizes",
    "Split",
    "Study",
    "Template",
    "TopK",
    "Virtual",
    "Whole",
    "Workers",
]
