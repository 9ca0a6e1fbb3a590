"""How good objects are, method by method, over a seeded set of scans; `docs/quality.md` has it.

`probing` and `cases` say what is reconstructed, `methods` by whom and with which settings,
`own_child` and `ptychi_child` run in a process for each, `driver` starts them and compares with the
truth what they make, `results` is kept, `table` and `pictures` show it.  Nothing here imports a
framework.
"""
