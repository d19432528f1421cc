"""Gradients of untrained models: which layers receive how much, and how it grows with depth.

Question: at initialization, how do the gradient of each weight group, the stream and the gradient
of the stream depend on layer and depth, for every placement?
Source: Xiong et al. 2020, arXiv:2002.04745: Theorem 1 (gradient of the last feed-forward matrix:
independent of depth in Post-LN, ~ L^-1/2 in Pre-LN), Lemma 2 (hidden norms).
Command: python -m experiments.init_profile --workdir=runs/init_profile
Time: 50 seconds on 2 CPU cores, most of it compilation; seconds when called again.
Expect: a table of fitted exponents and of Lemma 2's numbers beside the theory's, profile.nc (read
it with xarray.open_dataset), and profile.json.
"""

from pathlib import Path

from absl import flags

from experiments import command_line, environment, profiles

_WORKDIR = flags.DEFINE_string("workdir", "runs/init_profile", "Where the profile is written.")
_PLACEMENTS = flags.DEFINE_list("placements", None, "Names; all of the catalogue by default.")
_DEPTHS = flags.DEFINE_list("depths", ["6", "24", "96"], "Numbers of blocks.")
_WIDTH = flags.DEFINE_integer("width", 64, "Model width.", lower_bound=4)
_SEEDS = flags.DEFINE_integer("seeds", 2, "Initializations to average over.", lower_bound=1)


def main(arguments: list[str]) -> None:
    """Measure, print, save."""
    if len(arguments) > 1:
        command_line.stop(f"unexpected argument {arguments[1]!r}: flags begin with --")
    environment.restart_with_huge_pages()
    from lnjax import placements

    try:
        names = _PLACEMENTS.value or placements.names()
        for name in names:
            placements.get(name)
        depths = [int(x) for x in command_line.numbers("depths", _DEPTHS.value)]
    except ValueError as error:
        command_line.stop(error)
    workdir = Path(_WORKDIR.value)
    data, hidden = profiles.load_or_compute(workdir, names, depths, _WIDTH.value, _SEEDS.value)
    profiles.show(profiles.verdicts(data, hidden))
    print(f"profile  {workdir / 'profile.nc'}")


if __name__ == "__main__":
    command_line.run(main)
