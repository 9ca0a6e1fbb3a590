"""Physics-informed neural ptychography for Ptychodus, with interchangeable backends."""
