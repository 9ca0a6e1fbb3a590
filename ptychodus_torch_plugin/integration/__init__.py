"""The plugin in Ptychodus: reconstructors that appear in its window and in its batch mode.

`bridge` alone touches Ptychodus' internals, `panel` alone imports Qt, and the frameworks run in a
process of their own (`child` here, `worker` there).  Everything else uses `ptychodus.api`.
"""
