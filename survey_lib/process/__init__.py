"""Efficient Process Strategies: a room for each of the survey's ways to train, walk and sample with less."""
