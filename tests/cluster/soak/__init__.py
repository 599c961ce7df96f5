"""`make soak`: dozens of tiny trainings on a real cluster that is disturbed all the time, and what is left of it."""
