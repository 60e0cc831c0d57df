"""Declaration + groups → the space that is searched."""

from secateur.search_spaces.building import build_space
from secateur.search_spaces.choice import UNTOUCHED, Choice, Option, rungs
from secateur.search_spaces.space import Parameter, SearchSpace, all_methods

__all__ = ["UNTOUCHED", "Choice", "Option", "Parameter", "SearchSpace", "all_methods", "build_space", "rungs"]
