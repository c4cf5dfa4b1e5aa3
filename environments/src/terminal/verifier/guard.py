"""What Python has here goes before what an agent left: a name of this machine's is never looked up in the workspace."""

import os
import sys
from importlib.machinery import PathFinder

WORKSPACE = "/workspace"


def of_the_agent(path):
    path = os.path.realpath(path or os.curdir)
    return path == WORKSPACE or path.startswith(WORKSPACE + "/")


# What pytest itself is made of.
PYTEST = {"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr", "attrs", "py", "exceptiongroup", "tomli", "guard"}


def install(last=(), first=()):
    """Looks the paths of `last` up last. For this process alone: what it starts is as the task has it.

    Names of `first` are those of the task itself: they are looked up in `last`, whatever this machine has."""
    tasks = set(first) - PYTEST - set(sys.stdlib_module_names)
    last = list(last)
    own = [path for path in sys.path if not of_the_agent(path)]
    sys.path[:] = own + [path for path in sys.path if path not in own] + last
    find_spec = PathFinder.find_spec

    def own_first(_, name, path=None, target=None):
        if path is None:
            spec = find_spec(name, last, target) if name in tasks else None
            if spec is not None and spec.loader is not None:
                return spec
            spec = find_spec(name, own, target)
            # Without a loader it is a folder that happens to have the name.
            if spec is not None and spec.loader is not None:
                return spec
        return find_spec(name, path, target)

    def own_distributions(context=None):
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        name = context.name if context else None
        # A plugin of pytest is whatever says so beside its package.
        found = [path for path in (context.path if context else sys.path) if not of_the_agent(path)]
        return MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=found))

    # Pytest keeps it in a class of its own, where a plain function would become a method of that.
    PathFinder.find_spec = classmethod(own_first)
    PathFinder.find_distributions = staticmethod(own_distributions)
