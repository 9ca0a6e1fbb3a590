"""How fast the package is, as a share of what the machine can do; `docs/performance.md` has it.

`driver` starts a process for each case, `child` runs in it, `cases` says what is timed, `measuring`
how, `results` what is kept, `table` and `plots` how it is shown.  Nothing here imports a framework.
"""
