"""Declaration + groups → the space that is searched."""

from secateur.search_spaces.space import Choice, Parameter, SearchSpace, build_space

__all__ = ["Choice", "Parameter", "SearchSpace", "build_space"]
