"""Declaration + groups → the space that is searched."""

from secateur.search_spaces.choice import UNTOUCHED, Choice, Option, rungs
from secateur.search_spaces.space import Parameter, SearchSpace, build_space

__all__ = ["UNTOUCHED", "Choice", "Option", "Parameter", "SearchSpace", "build_space", "rungs"]
