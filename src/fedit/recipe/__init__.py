"""From YAML and key=value words to a plan or a study, and back, without loading anything they name."""

from fedit.recipe.checked import differences, dump_plan
from fedit.recipe.plans import changed, load_plan, load_section, make_plan
from fedit.recipe.studies import arm_plan, grid, load_study, make_study
from fedit.recipe.words import read_word

__all__ = [
    "arm_plan",
    "changed",
    "differences",
    "dump_plan",
    "grid",
    "load_plan",
    "load_section",
    "load_study",
    "make_plan",
    "make_study",
    "read_word",
]
